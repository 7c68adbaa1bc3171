"""The next-boot guard: a hook for new kernels, so that a kernel without the GPU's module does not boot next."""

from __future__ import annotations

from provision.model import KernelModule, State, Step, WriteFile

# run-parts takes them in order: after DKMS's own hook (dkms), before GRUB's (zz-update-grub)
HOOK = "/etc/kernel/postinst.d/zz-gpu-setup"
CHOICE = "/etc/default/grub.d/gpu-setup-next-kernel.cfg"
# `dpkg-query` as well as the files: prebuilt modules are unpacked in the kernel's run of dpkg and linked only after it.
SCRIPT = """\
#!/bin/sh
# written by gpu-setup: a kernel without a module for the GPU does not boot next; gpu-setup rollback removes this file
set -eu
module=@MODULE@
choice=@CHOICE@
notice=/run/motd.d/gpu-setup-kernel
command -v update-grub >/dev/null 2>&1 && [ -d /etc/default ] || exit 0

has_module() {
    find "/lib/modules/$1" -name "$module.ko*" 2>/dev/null | grep -q . && return 0
    dpkg-query -W -f '${db:Status-Status}\\n' "linux-modules-$module-*-$1" 2>/dev/null |
        grep -qxE 'installed|unpacked|half-configured|triggers-pending|triggers-awaited'
}

newest= good=
for release in $(ls /boot | sed -n 's/^vmlinuz-//p' | sort -rV); do
    [ -n "$newest" ] || newest=$release
    if has_module "$release"; then
        good=$release
        break
    fi
done
if [ -z "$good" ] || [ "$good" = "$newest" ]; then
    rm -f "$choice" "$notice"
    exit 0
fi
disk=$(grub-probe --target=fs_uuid / 2>/dev/null) || exit 0
mkdir -p "${choice%/*}" "${notice%/*}"
printf '# written by gpu-setup\\nGRUB_DEFAULT="gnulinux-advanced-%s>gnulinux-%s-advanced-%s"\\n' \\
    "$disk" "$good" "$disk" >"$choice.new"
mv "$choice.new" "$choice"
printf 'gpu-setup: kernel %s has no %s module yet; %s boots next. gpu-setup update upgrades both.\\n' \\
    "$newest" "$module" "$good" >"$notice"
"""


def hook_action(module: str) -> WriteFile:
    return WriteFile(path=HOOK, content=SCRIPT.replace("@MODULE@", module).replace("@CHOICE@", CHOICE), mode=0o755)


def choice_action(module: str) -> KernelModule:
    return KernelModule(name=module, change="choose", file=CHOICE)


def guard_step(module: str) -> Step:
    """The step that writes the hook; before the driver's step, so that no driver is installed without it."""
    return Step(
        id="next-boot-guard",
        title="Prevent booting a kernel that has no GPU driver",
        action=hook_action(module),
        state=State.TODO,
        because="Security updates install new kernels, and their module may come later or fail to build: the machine "
        "would boot without its GPU. The hook checks each new kernel; no update is held back.",
        commands=(("install", "-D", "--mode=0755", "/dev/stdin", HOOK),),
        undo=f"removes {HOOK} and its choice of kernel",
    )


def choice_step(module: str) -> Step:
    """The step after modules were installed: the hook checks only new kernels, and this kernel may be older."""
    return Step(
        id="next-boot-choice",
        title="Boot the newest kernel again if it has its module now",
        action=choice_action(module),
        state=State.TODO,
        because="A kernel without its module is not booted; the packages of this step may have added the module.",
        commands=((HOOK,), ("update-grub",)),
        undo="nothing to undo: the hook decides again with each kernel",
    )
