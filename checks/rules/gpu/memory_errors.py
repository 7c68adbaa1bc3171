"""Errors of the card's own memory: ECC counters and the rows that it has replaced."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import error, hardware, info, reboot, warning

_NO_COUNTER = "The card counts no memory errors: GeForce and Radeon cards have no ECC, or the driver does not say."


@check(
    "gpu.ecc",
    "The card's memory has no uncorrected errors",
    about="Cards with ECC count memory errors. One that could not be corrected means wrong data, a killed program or "
    "both. From NVML (since the driver was loaded), on AMD Instinct from the RAS counters in /sys. Cards without ECC "
    "are not judged.",
    by_hand="`nvidia-smi -q -d ECC` or `amd-smi metric --ecc`. Restart (the card replaces the row at its reset), run "
    "the vendor's diagnosis (`dcgmi diag -r 3`, `amd-smi ras`), and have the card replaced if errors come back.",
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
            "What was read then was wrong; a run over it ends, or trains on garbage.",
            [(source, count)],
            hardware("Restart the machine, and have the card replaced if errors come back."),
        )
        for card, count, source in counted
        if count
    ]
    return tuple(findings) or Ok("No uncorrected memory error.")


@check(
    "gpu.row-remap",
    "The card has spare memory rows left",
    about="Cards from Ampere on replace memory rows that fail by spare ones. A replacement that waits takes place at "
    "the next reset; one that failed means that no spare is left and the card is due for replacement. From NVML; "
    "GeForce cards do not tell.",
    by_hand="`nvidia-smi -q -d ROW_REMAPPER`. Pending: end all programs, `sudo nvidia-smi -r -i SLOT`, or restart. "
    "Remapping failure: ask for a replacement card.",
    needs=(needs.NVIDIA_CARD,),
)
def row_remap(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    told = [(card, gpu) for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.rows_remapped is not None]
    if not told:
        return Skip(_NO_COUNTER)
    findings: list[Finding] = []
    for card, gpu in told:
        about, seen = cards.subject(card, catalogue), [("NVML remapped rows", gpu.rows_remapped)]
        if gpu.rows_failed:
            findings.append(
                error(
                    about,
                    "The card could not replace a failing memory row.",
                    "No spare row is left there: memory errors will come back.",
                    [*seen, ("NVML row remapping", "failure occurred")],
                    hardware("Have the card replaced; until then keep long runs away from it."),
                )
            )
        elif gpu.rows_pending:
            findings.append(
                warning(
                    about,
                    "A failing memory row waits for its replacement.",
                    "The card replaces it at its next reset; until then programs can be ended by the error.",
                    [*seen, ("NVML row remapping", "pending")],
                    reboot("Restart the machine, or reset the card with nvidia-smi -r while nothing uses it."),
                )
            )
        elif gpu.rows_remapped:
            findings.append(
                info(
                    about,
                    f"The card has replaced {gpu.rows_remapped} memory rows.",
                    "That is what the spare rows are for; a number that grows is a card that ages.",
                    seen,
                    hardware("Nothing to do now; compare the number from time to time."),
                )
            )
    return tuple(findings) or Ok("No memory row was replaced.")
