"""The Purveyor server: a gRPC service broker that is never in the data path."""
