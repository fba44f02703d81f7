"""Language models: where their activations live, loading them, prompting, generating, capturing and editing."""
