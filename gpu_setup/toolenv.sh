# Make the tool's own environment; sourced by ./gpu-setup and ./test, which set `root`, `tool`, `lock` and `digest`.
# Sets `python` to the environment's interpreter, or exits: status 3 no usable Python, 4 disk or network failed.
# `proof` names the modules that must import for an environment to count as usable.
# shellcheck shell=sh disable=SC2154

say() {
    printf 'gpu-setup: %s\n' "$*" >&2
}

# what, why, next (and more lines of next)
explain() {
    say "$1"
    printf '  why:  %s\n  next: %s\n' "$2" "$3" >&2
    shift 3
    for line in "$@"; do printf '        %s\n' "$line" >&2; done
}

# "3.12 yes|no PATH" of one interpreter: version, whether it can make environments, itself. Fails below 3.11.
probe() {
    "$1" -I -c '
import sys
if sys.version_info < (3, 11):
    print("%d.%d old %s" % (sys.version_info[0], sys.version_info[1], sys.executable)); sys.exit()
try:
    import ensurepip, venv
    able = "yes"
except ImportError:
    able = "no"
print("%d.%d %s %s" % (sys.version_info[0], sys.version_info[1], able, sys.executable))' 2>/dev/null
}

# The best interpreter: one that the training environment can use too (3.11 to 3.13) before a newer one.
choose_python() {
    best= best_rank=0 version= able=
    set -- python3 python3.13 python3.12 python3.11 python3.14 python3.15 python3.16
    [ -z "${GPU_SETUP_PYTHON:-}" ] || set -- "$GPU_SETUP_PYTHON"
    for candidate in "$@"; do
        found=$(probe "$candidate") || continue
        case $found in
            *" old "*) rank=1 ;;
            *" no "*) rank=2 ;;
            3.11\ * | 3.12\ * | 3.13\ *) rank=4 ;;
            *) rank=3 ;;
        esac
        if [ "$rank" -gt "$best_rank" ]; then
            best=$found best_rank=$rank
        fi
        [ "$rank" -eq 4 ] && break
    done
    version=${best%% *}
    interpreter=${best#* }
    able=${interpreter%% *}
    interpreter=${interpreter#* }
}

refuse_python() {
    if [ "$best_rank" -eq 1 ]; then
        why="Found only Python $version ($interpreter)."
    elif [ -n "${GPU_SETUP_PYTHON:-}" ]; then
        why="GPU_SETUP_PYTHON names $GPU_SETUP_PYTHON, which is not a Python that starts."
    else
        why="Found no python3 on PATH."
    fi
    explain "Python 3.11 or newer is needed to start." "$why" \
        "Install one (Ubuntu 22.04: sudo apt install python3.11-venv; Ubuntu 24.04: sudo apt install python3-venv)," \
        "or name one that is not on PATH: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
    exit 3
}

# Ubuntu and Debian ship python3 without venv and ensurepip.
offer_venv() {
    if ! command -v apt-get >/dev/null 2>&1; then
        explain "Python $version ($interpreter) cannot make environments." \
            "Its modules venv and ensurepip are missing." \
            "Install them with your system's package manager, then run the same command again," \
            "or name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
        exit 3
    fi
    sudo=sudo
    [ "$(id -u)" -eq 0 ] && sudo=
    explain "Python $version ($interpreter) cannot make environments yet." \
        "Ubuntu and Debian keep that part in a package of its own: python$version-venv is missing." \
        "${sudo:+$sudo }apt install python$version-venv" "then run the same command again."
    [ -t 0 ] && [ -t 2 ] || exit 3
    printf 'Run "%sapt install python%s-venv" now? [y/N] ' "${sudo:+$sudo }" "$version" >&2
    read -r answer || exit 3
    case $answer in
        y | Y | yes | Yes) ;;
        *) exit 3 ;;
    esac
    $sudo apt-get install -y "python$version-venv" >&2 || {
        explain "apt could not install python$version-venv." "The lines above are its output." \
            "sudo apt update, then run the same command again."
        exit 4
    }
    choose_python
    [ "$best_rank" -ge 3 ] && return
    explain "Python $version still cannot make environments." "python$version-venv was installed, but venv does not import." \
        "Name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ..."
    exit 3
}

choose_python
[ "$best_rank" -ge 2 ] || refuse_python
[ "$best_rank" -ge 3 ] || offer_venv
case $tool in
    /.local/*)
        explain "The folder $tool cannot be written." "HOME is not set." \
            "Set GPU_SETUP_HOME to a folder that you can write, for example: GPU_SETUP_HOME=/var/tmp/gpu-setup ./gpu-setup ..."
        exit 4
        ;;
esac
key=$digest-$version
# Ctrl-C reaches the Python that builds, too: it removes what is incomplete before this ends
trap 'exit 130' INT TERM HUP
"$interpreter" -I "$root/gpu_setup/toolenv.py" "$tool" "$key" "$lock" "${proof:-click, msgspec, rich}" || exit
trap - INT TERM HUP
python=$tool/$key/bin/python
[ -z "${GPU_SETUP_REBUILD:-}" ] || GPU_SETUP_REBUILD=done
[ -z "${GPU_SETUP_REBUILD:-}" ] || export GPU_SETUP_REBUILD
