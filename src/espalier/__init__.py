"""espalier: fit neural networks to the frame of the hardware."""
