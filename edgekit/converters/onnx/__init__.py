"""ONNX: export, Q/DQ, fp16, lint."""
