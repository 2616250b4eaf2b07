"""encoders: face crops, sound and action units -> tokens."""
