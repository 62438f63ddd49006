"""`inference_network="auto"`: transforms, networks, training schedules, neural likelihood estimation."""
