"""A programmable SCP for testing SCUs: correct unless a scenario tells it what to do wrong."""
