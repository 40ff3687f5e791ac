"""Where meters come from, and how they stay steady from frame to frame."""
