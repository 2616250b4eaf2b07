"""runtime: what commands run on: terminal, console, files, processes, devices."""
