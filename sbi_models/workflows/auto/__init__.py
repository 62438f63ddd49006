"""`inference_network="auto"`: transforms, networks, lengths of training and a learned likelihood."""
