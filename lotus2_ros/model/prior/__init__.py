"""The image prior of the small models: a pre-trained backbone, whose features a network takes beside the latent."""
