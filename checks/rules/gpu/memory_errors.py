"""Errors of the card's memory: ECC counters and remapped rows."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import error, hardware, info, reboot, warning
from checks.rules.gpu.place import fitting

_NO_COUNTER = (
    "The card counts no memory errors: GeForce and Radeon cards have no ECC, or the driver does not report them."
)


@check(
    "gpu.ecc",
    "The card's memory has no uncorrected errors",
    about="Cards with ECC count memory errors. An uncorrected error means wrong data, a killed program, or both. From "
    "NVML (since the driver was loaded); on AMD Instinct from the RAS counters in /sys. Cards without ECC are skipped.",
    by_hand="`nvidia-smi -q -d ECC` or `amd-smi metric --ecc`. Reboot (the card replaces the row when it is reset), "
    "run the vendor's diagnosis (`dcgmi diag -r 3`, `amd-smi ras`), and replace the card if new errors appear.",
    needs=(needs.CARD,),
)
def ecc(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    counted = []
    for card in ours:
        gpu, amd = cards.nvml_of(card, host), cards.amd_of(card, host)
        if gpu is not None and gpu.ecc_uncorrected is not None:
            counted.append((card, gpu.ecc_uncorrected, "NVML uncorrected ECC errors"))
        elif amd is not None and amd.ecc_uncorrected is not None:
            path = f"/sys/bus/pci/devices/{card.slot}/ras/umc_err_count"
            counted.append((card, amd.ecc_uncorrected, path))
    if not counted:
        return Skip(_NO_COUNTER)
    findings = [
        error(
            cards.subject(card, catalogue),
            f"The card's memory has had {count} uncorrected error{'s' if count > 1 else ''}.",
            "The data read were wrong: the run was killed, or trained on wrong data.",
            [(source, count)],
            fitting(hardware("Reboot the machine, and replace the card if new errors appear."), host, card),
        )
        for card, count, source in counted
        if count
    ]
    return tuple(findings) or Ok("No uncorrected memory error.")


@check(
    "gpu.row-remap",
    "The card has spare memory rows left",
    about="Cards from Ampere on replace failing memory rows with spare rows. A pending replacement happens at the next "
    "reset; a failed one means that no spare row is left and the card must be replaced. From NVML; GeForce cards do "
    "not report it.",
    by_hand="`nvidia-smi -q -d ROW_REMAPPER`. If one is pending: stop all programs, then run `sudo nvidia-smi -r -i "
    "SLOT` or reboot. After a remapping failure, request a replacement card.",
    needs=(needs.NVIDIA_CARD,),
)
def row_remap(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    counted = [(card, gpu) for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.rows_remapped is not None]
    if not counted:
        return Skip(_NO_COUNTER)
    findings: list[Finding] = []
    for card, gpu in counted:
        about, seen = cards.subject(card, catalogue), [("NVML remapped rows", gpu.rows_remapped)]
        if gpu.rows_failed:
            findings.append(
                error(
                    about,
                    "The card could not replace a failing memory row.",
                    "No spare row is left, so memory errors will happen again.",
                    [*seen, ("NVML row remapping", "failure occurred")],
                    fitting(hardware("Replace the card; until then do not use it for long runs."), host, card),
                )
            )
        elif gpu.rows_pending:
            findings.append(
                warning(
                    about,
                    "The replacement of a failing memory row is pending.",
                    "The card replaces it at the next reset; until then the error can kill programs.",
                    [*seen, ("NVML row remapping", "pending")],
                    reboot("Reboot the machine, or reset the card with nvidia-smi -r while no program uses it."),
                )
            )
        elif gpu.rows_remapped:
            findings.append(
                info(
                    about,
                    f"The card has replaced {gpu.rows_remapped} memory rows.",
                    "Spare rows exist for this; a growing number means that the card is wearing out.",
                    seen,
                    hardware("Nothing to do now; check from time to time whether the number grows."),
                )
            )
    return tuple(findings) or Ok("No memory row has been replaced.")
