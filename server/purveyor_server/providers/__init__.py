"""The provider contract, the registry, the facade around each provider, and the providers themselves."""
