"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""
