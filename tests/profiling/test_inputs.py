"""What a frame is for a bundle, in words."""

from edgekit.bundle import read_bundle
from edgekit.profiling.inputs import input_of


def test_pictures_are_told_by_size_and_what_is_none_by_shape(make_bundle):
    stretched = read_bundle(make_bundle()).manifest
    assert input_of(stretched) == "a 16x16 picture (stretch)"
    echo = read_bundle(make_bundle(name="echo", precision="fp32")).manifest
    assert input_of(echo) == "1x4x2"


def test_precision_and_colours_are_no_other_input(make_bundle):
    plain = read_bundle(make_bundle()).manifest
    other = read_bundle(make_bundle(precision="fp32", preprocess="unit,color=bgr")).manifest
    assert input_of(plain) == input_of(other)
