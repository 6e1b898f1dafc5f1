"""Runs a program as root of a container with the usual restrictions: no namespaces, no mounts, few capabilities.

The filter is that of the common container engines as far as it matters: unshare, clone with namespaces, setns, mount and
all of its kin are refused, clone3 is not known. usage: container.py PROGRAM ARGUMENT…
"""

import ctypes
import os
import signal
import struct
import sys

EPERM, ENOSYS = 1, 38
LD, JEQ, JSET, RET = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
CLONE_NEW = 0x7E020080
MACHINE = os.uname().machine
# unshare setns mount umount2 pivot_root swapon swapoff reboot; the rest is the same everywhere
OLD = {
    "x86_64": [272, 308, 165, 166, 155, 167, 168, 169],
    "aarch64": [97, 268, 40, 39, 41, 224, 225, 142],
}[MACHINE]
CLONE = {"x86_64": 56, "aarch64": 220}[MACHINE]
# open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr, open_tree_attr
NEW = [428, 429, 430, 431, 432, 433, 442, 467]
CLONE3 = 435
# chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap
KEPT = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]


def rule(code, k, jt=0, jf=0):
    return struct.pack("HBBI", code, jt, jf, k)


def refuse(number, errno):
    return [rule(JEQ, number, 0, 1), rule(RET, ERRNO | errno)]


def main():
    program = [rule(LD, 0)]
    for number in OLD + NEW:
        program += refuse(number, EPERM)
    program += refuse(CLONE3, ENOSYS)
    program += [
        rule(JEQ, CLONE, 0, 3),
        rule(LD, 16),
        rule(JSET, CLONE_NEW, 0, 1),
        rule(RET, ERRNO | EPERM),
        rule(RET, ALLOW),
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program), ctypes.addressof(text))
    )

    def prctl(*arguments):
        arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")

    prctl(22, 2, ctypes.addressof(header))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if capability not in KEPT:
            prctl(24, capability)  # PR_CAPBSET_DROP
    # What Python itself ignores.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])


main()
