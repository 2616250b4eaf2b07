"""commands: what `viper` understands on the command line, one module a command."""
