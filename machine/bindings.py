"""Ask the vendors' libraries about their GPUs: `python -I bindings.py nvidia|amd [--every SECONDS]`.

The only importer of pynvml and amdsmi. It runs as a child of its own, because a call into a driver that hangs cannot
be ended inside a process and amdsmi prints to stdout. It prints one JSON document (with --every one per line, until
its stdout closes or its parent ends) and imports nothing of this tool, because -I leaves the tool's folder out.

    {"vendor", "problem", "detail", "stub", "driver", "cuda", "library", "gpus": [{"slot", …, "problem"}], "time"}

problem: null when the library answered; absent (no library), no-binding (no Python package), mismatch (the loaded
module has another version than the library), not-loaded (no kernel module), lost (the GPU fell off the bus),
not-permitted, else the library's message. `detail` holds the raw error. A value that cannot be read is null.
Units: bytes, Celsius, watts, joules, MHz, per cent; time in seconds since 1970, only with --every.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]

# NVML return codes (nvml.h) that have a word of ours
_NVML_WORDS = {4: "not-permitted", 9: "not-loaded", 12: "absent", 15: "lost", 18: "mismatch"}
_NVML_FIELDS_MISSING = 13
# amdsmi_status_t (amdsmi.h): NO_PERM, DRIVER_NOT_LOADED, NO_DRV
_AMDSMI_WORDS = {10: "not-permitted", 34: "not-loaded", 51: "not-loaded"}
_COMPUTE_MODES = ("default", "exclusive-thread", "prohibited", "exclusive-process")


def main(arguments: list[str]) -> int:
    every = None
    if len(arguments) == 3 and arguments[1] == "--every":
        try:
            every = float(arguments[2])
        except ValueError:
            every = math.nan
    if (
        not arguments
        or arguments[0] not in _VENDORS
        or len(arguments) not in (1, 3)
        or (every is None) is not (len(arguments) == 1)
        or (every is not None and not 0.02 <= every <= 3600)
    ):
        sys.stderr.write("usage: bindings.py nvidia|amd [--every SECONDS], 0.02 to 3600\n")
        return 2
    # whatever a library prints to stdout, at import or in a call, goes to stderr; the answer has a handle of its own
    answer = os.dup(1)
    os.dup2(2, 1)
    _end_with_parent()
    look = _VENDORS[arguments[0]]()
    due = time.monotonic()
    while True:
        document = look()
        if every is not None:
            document["time"] = time.time()
        try:
            _write(answer, json.dumps(document, ensure_ascii=True).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return 0
        if every is None:
            return 0
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _end_with_parent() -> None:
    # a parent that is killed cannot end us, and a hanging call never notices a closed pipe (prctl(2), PR_SET_PDEATHSIG)
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(0)


def _empty(vendor: str, problem: str | None = None, detail: str = "") -> Document:
    stub = bool(os.environ.get("GPU_SETUP_STUB"))
    return {
        "vendor": vendor, "problem": problem, "detail": detail, "stub": stub,
        "driver": None, "cuda": None, "library": None, "gpus": [],
    }  # fmt: skip


def _ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """The call's value; None for whatever it raises: a binding may raise anything, and the other values still count."""
    try:
        return call(*arguments)
    except Exception:
        return None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value and value != "N/A" else None


def _number(value: Any, factor: float = 1.0, low: float = 0.0, high: float = math.inf) -> float | None:
    """The number times `factor` if it is in [low, high]: a binding older than its library reads shifted fields."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    value = value * factor
    return value if low <= value <= high else None


def _whole(value: Any, high: int = 1 << 62) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high else None


def _slot(value: Any) -> str | None:
    """A PCI address as sysfs writes it: NVML prints eight digits of domain and upper case."""
    domain, _, rest = (_text(value) or "").lower().partition(":")
    return f"{domain[-4:]:0>4}:{rest}" if domain and rest else None


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (keeps the child light)
            return file.read(64).strip()
    except OSError:
        return ""


def _keep_open(
    start: Callable[[], None],
    stop: Callable[[], None],
    look: Callable[[], Document],
    problem: Callable[[Exception], tuple[str, str]],
    vendor: str,
) -> Callable[[], Document]:
    """A reader that keeps the library initialised: without persistence mode each new start takes seconds for each GPU.

    After a problem it initialises the library again: handles kept over a lost GPU or a module reload give old values.
    """
    ready = False

    def read_document() -> Document:
        nonlocal ready
        if not ready:
            try:
                start()
            except Exception as error:
                return _empty(vendor, *problem(error))
        document = look()
        ready = not document["problem"] and not any(gpu["problem"] for gpu in document["gpus"])
        if not ready:
            _ask(stop)
        return document

    return read_document


# ---- NVIDIA -----------------------------------------------------------------------------------------------------


def _nvidia() -> Callable[[], Document]:
    try:
        import pynvml
    except Exception as error:
        failed = _empty("nvidia", "no-binding", f"{type(error).__name__}: {error}")
        return lambda: dict(failed)
    return _keep_open(pynvml.nvmlInit, pynvml.nvmlShutdown, lambda: _nvml(pynvml), _nvml_problem, "nvidia")


def _nvml(nvml: Any) -> Document:
    document = _empty("nvidia")
    try:
        document["driver"] = _text(_ask(nvml.nvmlSystemGetDriverVersion))
        number = _whole(_ask(nvml.nvmlSystemGetCudaDriverVersion))
        document["cuda"] = f"{number // 1000}.{number % 1000 // 10}" if number else None
        document["stub"] |= hasattr(nvml.nvmlLib, "gpu_setup_stub") or "stub" in (document["driver"] or "")
        count = nvml.nvmlDeviceGetCount()
        document["gpus"] = [_nvml_gpu(nvml, index) for index in range(count)]
    except Exception as error:
        document["problem"], document["detail"] = _nvml_problem(error)
    return document


def _nvml_problem(error: Exception) -> tuple[str, str]:
    number = getattr(error, "value", None)
    said = str(error).rstrip(".") or type(error).__name__
    word = _NVML_WORDS.get(number) if isinstance(number, int) else None
    if number == _NVML_FIELDS_MISSING:
        word = "the library lacks a function that the binding needs"
    return word or said, f"{number}: {said}" if number is not None else f"{type(error).__name__}: {said}"


def _nvml_gpu(nvml: Any, index: int) -> Document:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except Exception as error:
        return {"problem": _nvml_problem(error)[0]}

    def ask(call: str, *more: Any) -> Any:
        return _ask(getattr(nvml, call, None) or _absent, handle, *more)

    # version 2 separates used and reserved memory; libraries before R510 have only version 1
    memory = ask("nvmlDeviceGetMemoryInfo", getattr(nvml, "nvmlMemory_v2", None)) or ask("nvmlDeviceGetMemoryInfo")
    bus = ask("nvmlDeviceGetPciInfo")
    number = _whole(getattr(bus, "pciDeviceId", None), (1 << 32) - 1)
    mode = ask("nvmlDeviceGetComputeMode")
    mig = ask("nvmlDeviceGetMigMode")
    limits = ask("nvmlDeviceGetPowerManagementLimitConstraints") or (None, None)
    able = ask("nvmlDeviceGetCudaComputeCapability")
    load = ask("nvmlDeviceGetUtilizationRates")
    persistence = ask("nvmlDeviceGetPersistenceMode")
    # (correctable, uncorrectable, pending, failed)
    rows = ask("nvmlDeviceGetRemappedRows") or (None, None, None, None)
    ecc = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    throttle = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if throttle is None:
        throttle = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return {
        "uuid": _text(ask("nvmlDeviceGetUUID")),
        "slot": _slot(getattr(bus, "busId", None)),
        # the device in the upper half, the vendor in the lower one
        "device": f"{number >> 16:04x}" if number else None,
        "name": _text(ask("nvmlDeviceGetName")),
        "memory_total": _whole(getattr(memory, "total", None)),
        "memory_used": _whole(getattr(memory, "used", None)),
        "memory_reserved": _whole(getattr(memory, "reserved", None)),
        "temperature": _whole(ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU), 200),
        "power": _number(ask("nvmlDeviceGetPowerUsage"), 1e-3, high=1e5),
        "power_limit": _number(ask("nvmlDeviceGetPowerManagementLimit"), 1e-3, high=1e5),
        "power_enforced": _number(ask("nvmlDeviceGetEnforcedPowerLimit"), 1e-3, high=1e5),
        "power_default": _number(ask("nvmlDeviceGetPowerManagementDefaultLimit"), 1e-3, high=1e5),
        "power_max": _number(limits[1], 1e-3, high=1e5),
        "energy": _number(ask("nvmlDeviceGetTotalEnergyConsumption"), 1e-3),
        "clock_sm": _whole(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM), 1 << 20),
        "clock_memory": _whole(ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM), 1 << 20),
        "utilisation": _whole(getattr(load, "gpu", None), 100),
        "throttle_reasons": _whole(throttle),
        "ecc_uncorrected": _whole(ask("nvmlDeviceGetTotalEccErrors", *ecc)),
        "rows_remapped": sum(rows[:2]) if all(_whole(count) is not None for count in rows[:2]) else None,
        "rows_pending": bool(rows[2]) if _whole(rows[2]) is not None else None,
        "rows_failed": bool(rows[3]) if _whole(rows[3]) is not None else None,
        "compute_mode": _COMPUTE_MODES[mode] if _whole(mode, 3) is not None else None,
        "mig": bool(mig[0]) if mig else None,
        "mig_instances": _mig_instances(ask, nvml, handle) if mig and mig[0] else None,
        "persistence": bool(persistence) if _whole(persistence, 1) is not None else None,
        "compute_capability": f"{able[0]}.{able[1]}" if able else None,
        "processes": _processes(ask),
        "compute_pids": _pids(ask("nvmlDeviceGetComputeRunningProcesses")),
        "problem": None,
    }


def _absent(*_: Any) -> None:
    """Used instead of a function that this version of the binding lacks."""


def _mig_instances(ask: Callable[..., Any], nvml: Any, handle: Any) -> int | None:
    most = _whole(ask("nvmlDeviceGetMaxMigDeviceCount"), 64)
    if most is None:
        return None
    return sum(_ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) is not None for index in range(most))


def _pids(processes: Any) -> list[int] | None:
    return None if processes is None else sorted({process.pid for process in processes})


def _processes(ask: Callable[..., Any]) -> list[tuple[int, str]] | None:
    lists = [ask(f"nvmlDeviceGet{kind}RunningProcesses") for kind in ("Compute", "Graphics")]
    if lists == [None, None]:
        return None
    return [(pid, _comm(pid)) for pid in sorted({process.pid for some in lists for process in some or ()})]


# ---- AMD --------------------------------------------------------------------------------------------------------


def _amd() -> Callable[[], Document]:
    """The binding that ROCm brought with its library, which fits it; without one the tool's own."""
    own, failed = _rocm_binding(), []
    for folder in (own, None) if own else (None,):
        if folder:
            sys.path.insert(0, folder)
        try:
            import amdsmi
        except ModuleNotFoundError as error:
            failed.append(("no-binding", str(error)))
        except KeyError as error:
            # amdsmi 7.0 without its library prints two lines and raises KeyError('libamd_smi.so')
            failed.append(("absent", f"KeyError: {error}"))
        except Exception as error:
            # AttributeError names the first symbol that an older library lacks
            failed.append(("the library does not fit the binding", f"{type(error).__name__}: {error}"))
        else:
            return _keep_open(amdsmi.amdsmi_init, amdsmi.amdsmi_shut_down, lambda: _smi(amdsmi), _smi_problem, "amd")
        if folder:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "amdsmi"]:
                del sys.modules[name]
    document = _empty("amd", failed[-1][0], "; ".join(detail for _, detail in failed)[:500])
    return lambda: dict(document)


def _rocm_binding() -> str | None:
    """The folder of ROCm's own amdsmi package. Root takes it only from where nobody else can write."""
    folder = os.path.join(os.environ.get("ROCM_PATH") or "/opt/rocm", "share", "amd_smi")
    try:
        found = os.stat(os.path.join(folder, "amdsmi", "__init__.py"))
    except OSError:
        return None
    return None if os.geteuid() == 0 and (found.st_uid != 0 or found.st_mode & 0o022) else folder


def _smi(smi: Any) -> Document:
    document = _empty("amd")
    try:
        library = smi.amdsmi_interface.amdsmi_wrapper._libraries["libamd_smi.so"]
        document["stub"] |= hasattr(library, "gpu_setup_stub")
        version = _ask(smi.amdsmi_get_lib_version) or {}
        document["library"] = (
            ".".join(str(version[key]) for key in ("major", "minor", "release") if key in version) or None
        )
        handles = smi.amdsmi_get_processor_handles()
        if handles:
            document["driver"] = _text((_ask(smi.amdsmi_get_gpu_driver_info, handles[0]) or {}).get("driver_version"))
        document["gpus"] = [_smi_gpu(smi, handle) for handle in handles]
    except Exception as error:
        document["problem"], document["detail"] = _smi_problem(error)
    return document


def _smi_problem(error: Exception) -> tuple[str, str]:
    number = _ask(getattr(error, "get_error_code", _absent))
    said = " ".join(str(getattr(error, "err_info", None) or error).split()) or type(error).__name__
    word = _AMDSMI_WORDS.get(number) if isinstance(number, int) else None
    return word or said, f"{number}: {said}" if number is not None else f"{type(error).__name__}: {said}"


def _smi_gpu(smi: Any, handle: Any) -> Document:

    def ask(call: str, *more: Any) -> Any:
        return _ask(getattr(smi, call, None) or _absent, handle, *more)

    def table(call: str, *more: Any) -> dict[str, Any]:
        found = ask(call, *more)
        return found if isinstance(found, dict) else {}

    asic, power, load = (
        table("amdsmi_get_gpu_asic_info"),
        table("amdsmi_get_power_info"),
        table("amdsmi_get_gpu_activity"),
    )
    cap = table("amdsmi_get_power_cap_info")
    energy = table("amdsmi_get_energy_count")
    vram = smi.AmdSmiMemoryType.VRAM
    kinds, now = smi.AmdSmiTemperatureType, smi.AmdSmiTemperatureMetric.CURRENT
    heat = {name: _number(ask("amdsmi_get_temp_metric", getattr(kinds, name), now), low=-50, high=200)
            for name in ("EDGE", "HOTSPOT", "VRAM")}  # fmt: skip
    clocks = {
        name: table("amdsmi_get_clock_info", getattr(smi.AmdSmiClkType, name)).get("clk") for name in ("GFX", "MEM")
    }
    ticks, step = _number(energy.get("energy_accumulator")), _number(energy.get("counter_resolution"))
    socket = _number(power.get("current_socket_power"), high=1e5)
    return {
        "uuid": _text(ask("amdsmi_get_gpu_device_uuid")),
        "slot": _slot(ask("amdsmi_get_gpu_device_bdf")),
        "name": _text(asic.get("market_name")),
        "gfx": _text(asic.get("target_graphics_version")),
        "memory_total": _whole(ask("amdsmi_get_gpu_memory_total", vram)),
        "memory_used": _whole(ask("amdsmi_get_gpu_memory_usage", vram)),
        "temperature_edge": heat["EDGE"],
        "temperature_junction": heat["HOTSPOT"],
        "temperature_memory": heat["VRAM"],
        "power": socket if socket is not None else _number(power.get("average_socket_power"), high=1e5),
        # microwatts (amdsmi.h, amdsmi_power_cap_info_t, since ROCm 6)
        "power_limit": _number(cap.get("power_cap"), 1e-6, low=1.0, high=1e5),
        "power_default": _number(cap.get("default_power_cap"), 1e-6, low=1.0, high=1e5),
        "power_max": _number(cap.get("max_power_cap"), 1e-6, low=1.0, high=1e5),
        # ticks of `counter_resolution` microjoules
        "energy": ticks * step * 1e-6 if ticks is not None and step else None,
        "clock_sm": _whole(clocks["GFX"], 1 << 20),
        "clock_memory": _whole(clocks["MEM"], 1 << 20),
        "utilisation": _whole(load.get("gfx_activity"), 100),
        "problem": None,
    }


_VENDORS: dict[str, Callable[[], Callable[[], Document]]] = {"nvidia": _nvidia, "amd": _amd}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
