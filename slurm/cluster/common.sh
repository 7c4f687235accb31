# shellcheck shell=bash
# What start.sh and stop.sh share: settings, messages, one at a time, whose process is whose.

D=${BENCH_SLURM_DIR:-/tmp/bench-slurm}
NODES=${BENCH_SLURM_NODES:-2} CPUS=${BENCH_SLURM_CPUS:-4} MEM=${BENCH_SLURM_MEM:-4000} GPUS=${BENCH_SLURM_GPUS:-2}
PORT=${BENCH_SLURM_PORT:-} ACCOUNTING=${BENCH_SLURM_ACCOUNTING:-1} WAIT=${BENCH_SLURM_WAIT:-60}
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$D/slurm.conf

say() { printf '[slurm %3d s] %s\n' "$SECONDS" "$*" >&2; }
refuse() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || refuse "must be root: sudo -E $0"
[[ $D =~ ^/[A-Za-z0-9._/-]+$ ]] || refuse "BENCH_SLURM_DIR: '$D' must be an absolute path of letters, digits and ._/-"
[ ${#D} -le 80 ] || refuse "BENCH_SLURM_DIR: $D is too long: a socket's path ends at 107 characters"
for number in "$NODES" "$CPUS" "$MEM" "$GPUS" "${PORT:-0}" "$ACCOUNTING" "$WAIT"; do
  [[ $number =~ ^[0-9]+$ ]] || refuse "the settings BENCH_SLURM_… are whole numbers, and '$number' is none"
done
[ "$NODES" -ge 1 ] || refuse "BENCH_SLURM_NODES: a cluster has at least one node"

# Run the calling script again under a lock, unless the caller (start.sh) holds it. --close: the daemons must not
# inherit the lock, or it would be held for as long as they live.
alone() {
  if [ "${BENCH_SLURM_LOCKED:-}" = "$D" ]; then unset BENCH_SLURM_LOCKED; return; fi
  mkdir -p "$(dirname "$D")"
  BENCH_SLURM_LOCKED=$D exec flock --close "$D.lock" bash "$0" "$@"
}

# A PID file can be stale: a process is ours only if it is the program we mean, run with this folder.
ours() { # pid name
  { [ -n "$1" ] && [ "$(cat "/proc/$1/comm")" = "$2" ] && cat "/proc/$1/cmdline" "/proc/$1/environ" | grep -qaF -- "$D/"; } 2>/dev/null
}

pid_of() { cat "$D/run/$1.pid" 2>/dev/null; }
