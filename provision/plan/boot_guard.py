"""The next-boot guard: a hook for when a kernel comes, so that one without the GPU's module is not started next."""

from __future__ import annotations

from provision.model import KernelModule, State, Step, WriteFile

# run-parts takes them in order: after DKMS's own hook (dkms), before GRUB's (zz-update-grub)
HOOK = "/etc/kernel/postinst.d/zz-gpu-setup"
CHOICE = "/etc/default/grub.d/gpu-setup-next-kernel.cfg"
# `dpkg-query` as well as the files: prebuilt modules are unpacked in the kernel's own run and linked only after it.
SCRIPT = """\
#!/bin/sh
# written by gpu-setup: a kernel without a module for the GPU is not started next; gpu-setup rollback removes this file
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
printf 'gpu-setup: kernel %s has no %s module yet; %s starts next. gpu-setup update moves both.\\n' \\
    "$newest" "$module" "$good" >"$notice"
"""


def guard_step(module: str) -> Step:
    """The step that writes the hook; before the driver's own, so that a driver is never there without it."""
    return Step(
        id="next-boot-guard",
        title="Keep a kernel without the GPU's module from being started next",
        action=WriteFile(path=HOOK, content=SCRIPT.replace("@MODULE@", module).replace("@CHOICE@", CHOICE), mode=0o755),
        state=State.TODO,
        because="Kernels come with security updates, and their module may come later or fail to build: the machine "
        "would start without its card. The hook looks when a kernel comes; no update is held back.",
        commands=(("install", "-D", "--mode=0755", "/dev/stdin", HOOK),),
        undo=f"removes {HOOK} and what it chose",
    )


def choice_step(module: str) -> Step:
    """The step after modules came: the hook looks when a kernel comes, and this kernel may be here already."""
    return Step(
        id="next-boot-choice",
        title="Let the newest kernel be started again if it has its module now",
        action=KernelModule(name=module, change="choose", file=CHOICE),
        state=State.TODO,
        because="A kernel that came before its module is kept from being started; what came now may be that module.",
        commands=((HOOK,), ("update-grub",)),
        undo="nothing: the hook decides anew with each kernel",
    )
