"""Distillation: a student network learns from the answers of a trained teacher.

`train` is the order of work. `teachers` answers, `lesson` is what a batch holds and what the
student's losses are, `student` derives a narrower network, `augment` changes samples at random.
"""
