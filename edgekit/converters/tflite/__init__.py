"""Float `.tflite` in, quantized `.tflite` out, on the file itself.

`convert` makes it, `observe` finds the ranges of its activations, `quantize_static` writes it in
integers after the table of `operators`, `lower` makes it fp16 or dynamic, `flatbuffer` reads and
writes the file.
"""
