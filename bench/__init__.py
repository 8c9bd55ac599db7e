"""The benchmark: registries, models, data, plan, runner, verifier, command line and pytest plugin."""
