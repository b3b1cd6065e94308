"""The gRPC face: decode, call one use-case, encode. No rule of the business lives here."""
