#!/usr/bin/env bash
# Start a real SLURM on this one machine, to try sweeps out and for the tests: munge, slurmctld, several slurmd and,
# for sacct, slurmdbd with a MariaDB of its own.
#
#   sudo -E slurm/cluster/start.sh [--fresh]     then    . $BENCH_SLURM_DIR/env.sh     (it sets SLURM_CONF)
#
# Needs root and Debian's packages, which it installs; no systemd, cgroups or docker. Everything listens on 127.0.0.1
# alone and lives under one folder; /etc/slurm, /etc/munge and /run are not touched, /etc/hosts at most by one line.
# A healthy cluster is left as it is (--fresh builds it anew); one that is not is stopped and built. Several processes
# may call this at once: the first one starts the cluster, the others wait and find it.
#
# Settings (environment variables):
#   BENCH_SLURM_DIR=/tmp/bench-slurm
#   BENCH_SLURM_NODES=2         BENCH_SLURM_CPUS=4       BENCH_SLURM_MEM=4000 (MB)     BENCH_SLURM_GPUS=2
#                               of each node, all made up: nothing keeps jobs from sharing the real ones
#   BENCH_SLURM_PORT            the first of 2 + nodes ports; unset: 26810, or where that is taken 26910, …
#   BENCH_SLURM_ACCOUNTING=1    0: no slurmdbd, so no sacct
#   BENCH_SLURM_WAIT=60         seconds for the nodes to answer
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=slurm/cluster/common.sh
. "$HERE/common.sh"
case ${1:-} in --fresh) FRESH=1 ;; '') FRESH=0 ;; *) echo "usage: $0 [--fresh]" >&2; exit 2 ;; esac
alone "$@"

HOST=$(uname -n); HOST=${HOST%%.*}
SETTINGS="nodes=$NODES cpus=$CPUS mem=$MEM gpus=$GPUS accounting=$ACCOUNTING"
if [ "$NODES" = 1 ]; then list=n0; else list="n[0-$((NODES - 1))]"; fi

stop() { BENCH_SLURM_LOCKED=$D bash "$HERE/stop.sh" >&2; }

die() {
  say "FAILED: $*"
  for log in "$D"/log/*.log; do [ ! -s "$log" ] || { echo "--- $log"; tail -n 15 "$log"; } >&2; done
  stop
  exit 1
}

# until_true SECONDS command …
until_true() { local end=$((SECONDS + $1)); shift; until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }

# ---------------------------------------------------------------- packages
have() { command -v "$1" >/dev/null 2>&1; }

install_missing() {
  local missing=() log made_policy=0
  have munged    || missing+=(munge)
  have slurmctld || missing+=(slurmctld)
  have slurmd    || missing+=(slurmd)
  have sbatch    || missing+=(slurm-client)
  if [ "$ACCOUNTING" != 0 ]; then
    have slurmdbd || missing+=(slurmdbd)
    # The -core packages: no service, no perl, no debconf. mariadb-install-db needs my_print_defaults of the client.
    have mariadbd          || missing+=(mariadb-server-core)
    have my_print_defaults || missing+=(mariadb-client-core)
  fi
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || refuse "no apt-get here: install yourself what has these programs: ${missing[*]}"
  # With a policy-rc.d, dpkg does not start (and wait for) services where there is no init.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made_policy=1
  fi
  log=$(mktemp)
  local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
  export DEBIAN_FRONTEND=noninteractive
  apt-get install "${options[@]}" "${missing[@]}" >"$log" 2>&1 \
    || { apt-get update -q >>"$log" 2>&1; apt-get install "${options[@]}" "${missing[@]}" >>"$log" 2>&1; } \
    || { tail -n 20 "$log" >&2; [ $made_policy = 0 ] || rm -f /usr/sbin/policy-rc.d; refuse "apt-get install ${missing[*]} failed"; }
  rm -f "$log"
  [ $made_policy = 0 ] || rm -f /usr/sbin/policy-rc.d
  say "installed: ${missing[*]}"
}

# ---------------------------------------------------------------- is it there already?
running() { ours "$(pid_of slurmctld)" slurmctld; }
answering() { timeout 5 sinfo -h -N -p main -o '%T' 2>/dev/null | grep -c -x -E 'idle|mixed|allocated|completing'; }
healthy() { running && [ "$(answering)" = "$NODES" ]; }   # without a controller sinfo would wait for long
idle() { [ "$(sinfo -h -N -p main -o '%T' 2>/dev/null | sort -u)" = idle ]; }

# Ours, or nothing: never remove a folder of somebody else's.
clear_folder() {
  [ ! -d "$D/run" ] || stop
  if [ -d "$D" ] && [ ! -f "$D/env.sh" ] && [ -n "$(ls -A "$D")" ]; then refuse "$D is no cluster of this script and not empty"; fi
  rm -rf "$D"
}

free_from() { # first port
  local port
  for ((port = $1; port < $1 + 2 + NODES; port++)); do
    if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 1; fi
  done
}

choose_ports() {
  local first
  if [ -n "$PORT" ]; then
    free_from "$PORT" || refuse "one of the ports $PORT to $((PORT + 1 + NODES)) is taken: choose another BENCH_SLURM_PORT"
    return
  fi
  for first in 26810 26910 27010 27110 27210; do
    if free_from "$first"; then PORT=$first; return; fi
  done
  refuse "no free ports from 26810 on: choose BENCH_SLURM_PORT"
}

# ---------------------------------------------------------------- configuration
# NoInAddrAny binds to what this host's name means, and srun gives up where it means nothing, so it must mean
# 127.0.0.1. So must the nodes' names: processes of one cell on several nodes meet at the first one's.
name_hosts() {
  local names=() hosts n
  case $(getent ahostsv4 "$HOST" | awk 'NR==1{print $1}') in 127.*) ;; *) names+=("$HOST" "$(uname -n)") ;; esac
  for ((n = 0; n < NODES; n++)); do getent ahostsv4 "n$n" >/dev/null || names+=("n$n"); done
  [ ${#names[@]} -gt 0 ] || return 0
  hosts=$(cat /etc/hosts)
  printf '127.0.0.1 %s # bench-slurm %s\n%s\n' "${names[*]}" "$D" "$hosts" >/etc/hosts   # no rename: docker mounts it
  say "/etc/hosts: ${names[*]} -> 127.0.0.1"
}

# GPUs that are none. Each needs a character device of its own in File=: a plain file is refused ("is not a valid
# character or block device", and jobs get no CUDA_VISIBLE_DEVICES), and Count= without File= makes the node INVAL
# ("gres/gpu count reported lower than configured"). Copies of /dev/null do; without mknod, six that are there.
write_gres() {
  local there=(/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty) n file
  : >"$D/gres.conf"
  for ((n = 0; n < GPUS; n++)); do
    if mknod "$D/dev/gpu$n" c 1 3 2>/dev/null; then file=$D/dev/gpu$n; else file=${there[n]:-}; fi
    [ -n "$file" ] || die "no mknod here, so at most 6 GPUs for each node"
    echo "NodeName=$list Name=gpu Type=fake File=$file" >>"$D/gres.conf"
  done
}

write_configuration() {
  mkdir -p "$D"/{munge,state,log,run,dev,db}
  chmod 755 "$D" "$D/munge"
  echo "export SLURM_CONF=$D/slurm.conf" >"$D/env.sh"
  ( umask 077; head -c 1024 /dev/urandom >"$D/munge/munge.key" )   # 0600, owned by who runs munged
  write_gres
  # slurmd loads a cgroup plugin even with proctrack/linuxproc and task/none. cgroup/v1 does nothing until it is used;
  # cgroup/v2, which autodetection picks on a v2 host, wants systemd's dbus. SLURM 22.05 does not know 'disabled'.
  echo "CgroupPlugin=cgroup/v1" >"$D/cgroup.conf"
  slurm_conf >"$D/slurm.conf"
}

slurm_conf() {
  local gres="" ports=$((PORT + 2)) accounting="AccountingStorageType=accounting_storage/none"
  [ "$NODES" = 1 ] || ports="[$ports-$((PORT + 1 + NODES))]"
  [ "$GPUS" = 0 ] || gres="Gres=gpu:fake:$GPUS"
  [ "$ACCOUNTING" = 0 ] || accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$D/munge/munge.socket
AccountingStorageTRES=gres/gpu"
  cat <<CONF
ClusterName=bench
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
# --- loopback only
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
# --- a munge of its own; cred_expire is also how long a requeued job waits before it may start again (else 120 s)
AuthType=auth/munge
AuthInfo=socket=$D/munge/munge.socket,cred_expire=5
CredType=cred/munge
# --- files
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool-%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
MailProg=/bin/true
# --- no cgroups, no affinity; memory is sampled, and what exceeds its request is killed (sacct says FAILED, 9:0)
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
# --- scheduling: quick to react, made-up CPUs allowed; jobs that name no memory share a node
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
DefMemPerCPU=256
GresTypes=gpu
# --- preemption by partition: jobs in 'low' are put back into the queue by those in 'high'; the signal that they
# --- asked for comes first only with preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# --- time limits (whole minutes, looked at every 30 s) and node failures that one can wait for
KillWait=5
OverTimeLimit=0
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
ReturnToService=2
MinJobAge=600
# --- files of jobs are named by job id: ids must not start at 1 again beside those of the last cluster
FirstJobId=$(($(date +%s) % 60000000 + 1))
$accounting
NodeName=$list NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$ports CPUs=$CPUS RealMemory=$MEM $gres State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=low  Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
CONF
}

# ---------------------------------------------------------------- daemons
start_munge() {
  # --force: else it refuses a folder below a private (0700) or another user's one; all here is root's anyway
  munged --force --key-file="$D/munge/munge.key" --socket="$D/munge/munge.socket" --pid-file="$D/run/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/munge/munge.seed" </dev/null >>"$D/log/start.log" 2>&1 || die "munged"
  munge -S "$D/munge/munge.socket" -n | unmunge -S "$D/munge/munge.socket" >/dev/null || die "munge's own test"
}

start_database() {
  # The tables go to memory where there is enough: making them takes 0.5 s in /dev/shm and 5 s on a busy disk.
  local shm
  shm=/dev/shm/bench-slurm-$(printf %s "$D" | cksum | cut -d' ' -f1)
  rm -rf "$shm"
  if [ "$(df -Pm /dev/shm 2>/dev/null | awk 'NR==2{print $4}')" -gt 300 ] 2>/dev/null && mkdir -m 755 "$shm"; then
    rmdir "$D/db"; ln -s "$shm" "$D/db"
  fi
  # As root: another user could not get through a private folder on the way to $D.
  local options=(--no-defaults --user=root --datadir="$D/db/data" --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0)
  mariadb-install-db "${options[@]}" --skip-test-db --auth-root-authentication-method=socket \
    --auth-root-socket-user=root >"$D/log/mariadb-install.log" 2>&1 || die "mariadb-install-db"
  setsid mariadbd "${options[@]}" --socket="$D/db/my.sock" --skip-networking --pid-file="$D/db/mariadbd.pid" \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --skip-log-bin --performance-schema=OFF \
    </dev/null >"$D/log/mariadbd.log" 2>&1 &
  echo $! >"$D/run/mariadbd.pid"; disown
  until_true 30 test -S "$D/db/my.sock" || die "mariadbd did not open its socket"
}

start_accounting() {
  start_database
  ( umask 077; cat >"$D/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$D/munge/munge.socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
SlurmUser=root
CommunicationParameters=NoInAddrAny
LogFile=$D/log/slurmdbd.log
PidFile=$D/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  )
  MYSQL_UNIX_PORT=$D/db/my.sock slurmdbd </dev/null >>"$D/log/start.log" 2>&1 || die "slurmdbd"
  until_true 30 accounts || die "slurmdbd does not answer"
  sacctmgr -n -i add cluster bench >>"$D/log/start.log" 2>&1 || true
  say "mariadbd and slurmdbd run"
}

accounts() { timeout 5 sacctmgr -n -i show cluster >/dev/null 2>"$D/log/sacctmgr.log"; }

start_slurm() {
  local n
  slurmctld -f "$SLURM_CONF" </dev/null >>"$D/log/start.log" 2>&1 || die "slurmctld"
  for ((n = 0; n < NODES; n++)); do
    mkdir -p "$D/spool-n$n"   # slurmd does not make the folder itself
    slurmd -N "n$n" -f "$SLURM_CONF" </dev/null >>"$D/log/start.log" 2>&1 || die "slurmd n$n"
  done
  until_true "$WAIT" healthy || die "the nodes do not answer: $(timeout 5 sinfo -h -N 2>&1)"
  # One real step, so that a cluster which only looks up is not called up.
  timeout 30 srun -N"$NODES" -n"$NODES" --mem=10 -t1 true || die "srun true"
  until_true "$WAIT" idle || die "the nodes are not idle again"
}

# ---------------------------------------------------------------- all of it
install_missing
if [ "$FRESH" = 0 ] && running; then
  built=$(cat "$D/settings" 2>/dev/null || true)
  [ -z "$built" ] || [ "$built" = "$SETTINGS" ] || refuse "a cluster with other settings runs in $D ($built): --fresh, or another BENCH_SLURM_DIR and PORT"
  if until_true 15 healthy; then say "already running in $D"; exit 0; fi   # patient: the machine may be busy
fi
clear_folder
choose_ports
name_hosts
write_configuration
start_munge
[ "$ACCOUNTING" = 0 ] || start_accounting
start_slurm
echo "$SETTINGS" >"$D/settings"
say "ready: $(sinfo -h -p main -o '%D nodes %T, %c cpus, %m MB, gres %G'), $(slurmctld -V)"
say "use it:  . $D/env.sh      end it:  $HERE/stop.sh"
