"""An embedded example: generated frames of eight shapes, and a small MobileNet that names them."""
