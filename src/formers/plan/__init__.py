"""What a training or decoding set-up takes, worked out from the spec before anything is allocated."""
