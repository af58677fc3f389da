"""What the set-up does with a wheel: `list` it, `read` one member, or `extract` the members named on standard input."""

import sys
import zipfile

task, wheel, *rest = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    if task == "list":
        print("\n".join(archive.namelist()))
    elif task == "read":
        sys.stdout.write(archive.read(rest[0]).decode())
    else:
        archive.extractall(rest[0], sys.stdin.read().splitlines())
