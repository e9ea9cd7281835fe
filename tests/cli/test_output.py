"""What the verbs share: lines and bars for people, whatever words others gave."""

import io

from edgekit.cli._output import note, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_note_cannot_steer_the_terminal_and_is_one_line(capsys):
    note("odd \x1b[2J\x07 [bold]name[/nope]\nforged: line")

    assert capsys.readouterr().err == "odd \\x1b[2J\\x07 [bold]name[/nope] forged: line\n"


def test_a_phase_that_another_machine_names_is_only_text(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with progress() as show:
        show("[/nope] \x1b[2J", 1, 2)

    assert "[/nope] \\x1b[2J" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
