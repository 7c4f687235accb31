#!/usr/bin/env bash
# Stop the cluster that start.sh made in BENCH_SLURM_DIR (/tmp/bench-slurm): cancel its jobs, then end its daemons by
# their PID files. The folder stays, with the daemons' logs; nothing else does.
set -uo pipefail
# shellcheck source=slurm/cluster/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
[ -d "$D/run" ] || { echo "no cluster in $D"; exit 0; }
alone "$@"

end() { # pidfile name [seconds until KILL]
  local pid n
  pid=$(cat "$1" 2>/dev/null) || return 0
  if ours "$pid" "$2"; then
    kill -TERM "$pid" 2>/dev/null
    for ((n = 0; n < ${3:-10} * 10; n++)); do ours "$pid" "$2" || break; sleep 0.1; done
    if ours "$pid" "$2"; then echo "$2 ($pid) did not end on TERM: KILL"; kill -KILL "$pid"; fi
  fi
  rm -f "$1"
}

# slurmstepd, and with it the jobs, outlives slurmd: cancel first, while someone can.
cancel_jobs() {
  local n
  ours "$(pid_of slurmctld)" slurmctld || return 0
  timeout 10 scancel --state=PENDING 2>/dev/null
  timeout 10 scancel --signal=KILL --full --state=RUNNING 2>/dev/null
  timeout 10 scancel --state=RUNNING 2>/dev/null
  for ((n = 0; n < 100; n++)); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
}

# Jobs whose slurmd or slurmctld died before: their processes carry our SLURM_CONF and a job's id. This script and what
# called it are left alone even so.
kill_left_over() {
  local up=" $$ " pid=$$ left=() entry
  while [ "${pid:-0}" -gt 1 ]; do pid=$(awk '/^PPid:/{print $2}' "/proc/$pid/status" 2>/dev/null); up="$up${pid:-0} "; done
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    case "$up" in *" $pid "*) continue ;; esac
    if { tr '\0' '\n' <"$entry/environ" | grep -qxF "SLURM_CONF=$SLURM_CONF" \
      && tr '\0' '\n' <"$entry/environ" | grep -q '^SLURM_JOB_\?ID='; } 2>/dev/null || ours "$pid" slurmstepd; then
      left+=("$pid")
    fi
  done
  [ ${#left[@]} = 0 ] || { echo "left-over processes of jobs, KILL: ${left[*]}"; kill -KILL "${left[@]}" 2>/dev/null; }
}

cancel_jobs
for file in "$D"/run/slurmd-*.pid; do [ ! -e "$file" ] || end "$file" slurmd; done
end "$D/run/slurmctld.pid" slurmctld
end "$D/run/slurmdbd.pid" slurmdbd
end "$D/run/mariadbd.pid" mariadbd 20
end "$D/run/munged.pid" munged
kill_left_over
if [ -L "$D/db" ]; then rm -rf "$(readlink "$D/db")"; rm -f "$D/db"; fi   # the tables in /dev/shm
if grep -q "# bench-slurm $D\$" /etc/hosts; then
  hosts=$(grep -v "# bench-slurm $D\$" /etc/hosts); printf '%s\n' "$hosts" >/etc/hosts
fi
echo "stopped ($D)"
