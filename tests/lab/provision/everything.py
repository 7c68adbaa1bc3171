"""Lists every file of a machine: runs in a guest before and after a command that must not write."""

import hashlib
import json
import os
import stat
import sys
from pathlib import Path

# what lives only while the machine runs, and what systemd's own journal and clock write by themselves
LEFT_OUT = ("/proc", "/sys", "/dev", "/run", "/var/log/journal", "/var/lib/systemd/timesync")


def everything():
    found = {}
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in LEFT_OUT]
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            entry = os.lstat(path)
            row = [entry.st_mode, entry.st_uid, entry.st_gid, entry.st_mtime_ns, entry.st_ino]
            if stat.S_ISREG(entry.st_mode):
                row += [entry.st_size, hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()]
            elif stat.S_ISLNK(entry.st_mode):
                row += [os.readlink(path)]
            found[path] = row
    return found


json.dump(everything(), sys.stdout)
