"""Bundle + frames -> predictions; needs numpy, OpenCV and one backend."""

from edgekit.errors import require

# Said once, here: everything below works on OpenCV's pictures.
require("cv2", "cpu")
