"""Run pip as if on another Python and machine: `pip_for.py PYTHON MACHINE COMMAND [ARGUMENT ...]`.

    python ci/pip_for.py 3.10 aarch64 download --dest wheels -c constraints.txt numpy

pip's own `--python-version` and `--platform` choose among wheels, but markers such as
`python_version < "3.11"` are still asked of the interpreter that runs pip
(https://github.com/pypa/pip/issues/11010): a wheelhouse for 3.10 made on 3.11
would lack tomli and hold to the pins of 3.11. So the markers' environment is set here as well.
"""

import re
import runpy
import sys

from pip._vendor.packaging import markers

# Of the systems in docs/install.md the oldest C library is JetPack 6's (Ubuntu 22.04).
NEWEST_GLIBC_MINOR = 35
OLDEST_GLIBC_MINOR = 17  # manylinux2014
USAGE = "usage: pip_for.py PYTHON MACHINE COMMAND [ARGUMENT ...], PYTHON like 3.10, MACHINE aarch64"


def target_environment(python: str, machine: str) -> dict[str, str]:
    """Return what differs in the markers' environment (PEP 508) from this interpreter's."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
    }


def target_options(python: str, machine: str) -> list[str]:
    """Return pip's options that choose wheels for the target, and nothing but wheels."""
    glibc = range(NEWEST_GLIBC_MINOR, OLDEST_GLIBC_MINOR - 1, -1)
    tags = [f"manylinux_2_{minor}" for minor in glibc] + ["manylinux2014"]
    platforms = [f"--platform={tag}_{machine}" for tag in tags]
    return [
        f"--python-version={python}",
        "--implementation=cp",
        "--only-binary=:all:",
        *platforms,
    ]


def main(arguments: list[str]) -> None:
    """Run pip for the target; ends as pip does."""
    if len(arguments) < 3 or not re.fullmatch(r"3\.\d+", arguments[0]):
        sys.stderr.write(f"{USAGE}\n")
        sys.exit(2)
    python, machine, *command = arguments
    ours = markers.default_environment()
    markers.default_environment = lambda: {**ours, **target_environment(python, machine)}
    sys.argv = ["pip", *command, *target_options(python, machine)]
    runpy.run_module("pip", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
