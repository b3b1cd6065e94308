"""Who calls: certificates, bearer tokens of an issuer, static tokens; one principal out of each."""
