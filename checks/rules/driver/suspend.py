"""What a suspend of the machine does to CUDA."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Verdict, check
from checks.rules import kernel_log, needs
from checks.rules.finding import command, warning

_PRESERVE = "NVreg_PreserveVideoMemoryAllocations="


@check(
    "driver.suspend",
    "No suspend since boot has cleared the NVIDIA card's memory",
    about="A suspend switches the card off. Unless NVreg_PreserveVideoMemoryAllocations is set (Ubuntu 24.04's "
    "packages do not set it), the driver loses what programs had in its memory, and nvidia_uvm can be left in a stale "
    "state: nvidia-smi works, but CUDA fails with `unknown error` (999). Decided from the kernel log (`PM: suspend "
    "exit`) and the module options; the doctor does not start CUDA.",
    by_hand="Stop the programs on the card, then `sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`, or reboot. "
    "For the future put `options nvidia NVreg_PreserveVideoMemoryAllocations=1 NVreg_TemporaryFilePath=/var/tmp` into "
    "/etc/modprobe.d/nvidia-power.conf, run `sudo update-initramfs -u` and `sudo systemctl enable nvidia-suspend "
    "nvidia-resume nvidia-hibernate`, and reboot.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
)
def suspended(host: Host, catalogue: Catalogue) -> Verdict:
    log = host.kernel.log
    if log is None:
        return kernel_log.cannot_read(host, "whether the machine was suspended")
    events = kernel_log.matching_lines(
        log, "", r"(PM: (?:suspend|hibernation: hibernation) exit)|nvidia-uvm: Loaded the UVM driver"
    )
    suspends = [line for line, match in events if match[1]]
    if not suspends:
        return Ok("The machine was not suspended since boot.")
    if not events[-1][1][1]:
        return Ok("nvidia_uvm was loaded again after the last suspend.")
    set_by = [option for module, option, _ in host.kernel.module_options or () if module == "nvidia"]
    set_by += [word.partition(".")[2] for word in host.kernel.cmdline or () if word.startswith("nvidia.")]
    if any(option.startswith(_PRESERVE) and option != f"{_PRESERVE}0" for option in set_by):
        return Ok("The machine was suspended, and the driver is set to keep the card's memory.")
    return (
        warning(
            "NVIDIA driver",
            f"The machine was suspended {kernel_log.times(len(suspends))} since boot, and the driver does not keep the "
            "card's memory.",
            "Programs that were using the card fail, and CUDA can answer `unknown error` (999) until nvidia_uvm is "
            "loaded again, although nvidia-smi works.",
            [*kernel_log.quote(suspends, 1), ("/etc/modprobe.d", f"no {_PRESERVE}1 for nvidia")],
            command(
                "If CUDA fails: stop the programs on the card, then run this and `sudo modprobe nvidia_uvm`, or "
                "reboot. To keep the memory from now on: gpu-setup doctor --explain driver.suspend",
                *("modprobe", "-r", "nvidia_uvm"),
                sudo=True,
            ),
        ),
    )
