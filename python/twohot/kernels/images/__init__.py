"""What lies between the convolutions of images, on a CPU."""
