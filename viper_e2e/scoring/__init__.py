"""scoring: every clip of a source scored once, and what the scores come to."""
