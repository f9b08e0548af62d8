#!/usr/bin/env bash
# Builds every image that docker-compose.yml names without an image registry: from Debian packages and from the wheels of
# requirements.lock, and loads them into the Docker engine under the very names of the file.
#
#   deploy/airgap/build.sh                      build what is missing or has changed
#   deploy/airgap/build.sh --save FILE.tar.gz   and write them all into one file for `docker load` elsewhere
#   deploy/airgap/build.sh --fresh              forget the Debian base and the wheels kept in out/airgap first
#
# Needs: root, Debian, debootstrap, a Docker engine, a Debian mirror (the one that apt uses), a package index (pip's).
# An image of one of these names that was not made here is left as it is. docs/operations/airgap.md says what differs
# from the upstream images. Works with the classic builder; no container of a build has a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export DOCKER_BUILDKIT=0 DEBIAN_FRONTEND=noninteractive
readonly HERE=deploy/airgap OUT="$PWD/out/airgap" MADE=io.lablet.airgap
SAVE=""
FRESH=""

say() { echo "airgap: $*"; }
fail() { echo "airgap: $*" >&2; exit 1; }
# The value of a label of an image; nothing when there is no such image or label.
label() { docker image inspect --format "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null || true; }
digest() { sha256sum | cut -c1-16; }

while (($#)); do
  case "$1" in
    --save) SAVE="${2:?--save needs a file name}"; shift 2 ;;
    --fresh) FRESH=yes; shift ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown option '$1' (--help lists them)" ;;
  esac
done

[[ "$(id -u)" == 0 ]] || fail "debootstrap needs root"
for program in debootstrap docker apt-get; do
  command -v "$program" >/dev/null || fail "'$program' is missing (apt-get install debootstrap docker.io)"
done
docker version >/dev/null 2>&1 || fail "no Docker engine answers at ${DOCKER_HOST:-the default socket}"
# shellcheck source=/dev/null
SUITE="$(. /etc/os-release && [[ "${ID:-}" == debian ]] && echo "${VERSION_CODENAME:-}")" || true
[[ -n "$SUITE" ]] || fail "this is not a Debian release; the images are made from the packages of the one it runs on"
[[ -z "$FRESH" ]] || rm -rf "$OUT"
mkdir -p "$OUT"
[[ -x .venv/bin/python ]] || make --no-print-directory setup

# --- what the compose file names, and whether there is a recipe for each ----------------------------------------------
mapfile -t NAMES < <(sed -n 's/^ *image: *//p' docker-compose.yml | sed 's/^\${[A-Z_]*:-\(.*\)}$/\1/' | sort -u)
IMAGE_ETCD="" IMAGE_NATS="" IMAGE_S3="" IMAGE_PROXY="" IMAGE_LABLET=""
for name in "${NAMES[@]}"; do
  case "$name" in
    */etcd:*) IMAGE_ETCD="$name" ;;
    nats:*) IMAGE_NATS="$name" ;;
    rclone/rclone:*) IMAGE_S3="$name" ;;
    haproxy:*) IMAGE_PROXY="$name" ;;
    lablet:*) IMAGE_LABLET="${LABLET_IMAGE:-$name}" ;;
    otel/* | prom/* | grafana/*) say "$name has no source here: the profile obs is left out" ;;
    *) fail "docker-compose.yml names $name and there is no recipe for it in $HERE" ;;
  esac
done

# --- the Debian base: python and certificates, brought up to date, once -----------------------------------------------
readonly BASE="lablet-airgap/debian:$SUITE" WHEELS="lablet-airgap/wheels:$SUITE"
readonly PACKAGES=ca-certificates,netbase,tzdata,python3,python-is-python3,python3-venv
readonly SERVERS=(etcd-server etcd-client busybox-static)
sources() {
  apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' \
    | grep -E " $SUITE(-updates|-security)? " | sort -u
}
if [[ -z "$(sources)" ]]; then apt-get update -qq; fi
SOURCES="$(sources)" || fail "apt knows no mirror for $SUITE; add one to /etc/apt/sources.list and run apt-get update"
RECIPE="$(printf '%s\n' "$SOURCES" "$PACKAGES" "${SERVERS[@]}" | cat - <(sed -n '/^make_base/,/^}/p' "$0") | digest)"

make_base() {
  local mirror root
  mirror="$(awk -v suite="$SUITE" '$3 == suite {print $2; exit}' <<<"$SOURCES")"
  root="$(mktemp -d "$OUT/rootfs.XXXXXX")"
  # shellcheck disable=SC2064
  trap "rm -rf --one-file-system '$root'" RETURN
  mkdir -p "$OUT/packages"
  debootstrap --variant=minbase --include="$PACKAGES" --cache-dir="$OUT/packages" "$SUITE" "$root" "$mirror" \
    >"$OUT/debootstrap.log" 2>&1 || { tail -5 "$OUT/debootstrap.log" >&2; return 1; }
  echo "$SOURCES" >"$root/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 0755 "$root/usr/sbin/policy-rc.d"
  chroot "$root" apt-get update -qq -o APT::Sandbox::User=root
  chroot "$root" apt-get dist-upgrade -qq -y >>"$OUT/debootstrap.log" 2>&1
  rm -rf "$OUT/servers" "$root/servers"
  mkdir "$root/servers"
  chroot "$root" sh -c "cd /servers && apt-get download -qq -o APT::Sandbox::User=root ${SERVERS[*]}"
  mkdir -p "$root/servers/haproxy/partial"
  chroot "$root" apt-get install -qq -y --no-install-recommends --download-only -o APT::Sandbox::User=root \
    -o Dir::Cache::archives=/servers/haproxy haproxy >>"$OUT/debootstrap.log" 2>&1
  mv "$root/servers" "$OUT/servers"
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/* "$root"/usr/share/{doc,man,locale,info}/* \
    "$root"/usr/sbin/policy-rc.d "$root"/etc/resolv.conf "$root"/tmp/*
  tar --create --numeric-owner --one-file-system --directory "$root" . \
    | docker import --change "LABEL $MADE=$RECIPE" --change 'ENV LANG=C.UTF-8' --change 'CMD ["/bin/sh"]' - "$BASE" >/dev/null
}

get_wheels() {
  rm -rf "$OUT/wheels" && mkdir -p "$OUT/wheels"
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --dest "$OUT/wheels" --requirement requirements.lock 2>"$OUT/wheels.log" \
    || { tail -5 "$OUT/wheels.log" >&2; return 1; }
  digest <requirements.lock >"$OUT/wheels.of"
}

fetching=""
if [[ "$(cat "$OUT/wheels.of" 2>/dev/null)" != "$(digest <requirements.lock)" ]]; then
  say "fetching the wheels of requirements.lock"
  rm -f "$OUT/wheels.of"
  get_wheels & fetching=$!
fi
if [[ "$(label "$BASE" $MADE)" != "$RECIPE" || ! -d "$OUT/servers" ]]; then
  say "making $BASE from packages (a minute or two)"
  make_base || { [[ -z "$fetching" ]] || kill "$fetching"; fail "debootstrap failed; all of it is in $OUT/debootstrap.log"; }
fi
[[ -z "$fetching" ]] || wait "$fetching" || fail "the wheels cannot be had; all of it is in $OUT/wheels.log"

# --- servers: one program each, under the paths that the compose file uses --------------------------------------------
from_package() { # from_package NAME PATH DESTINATION: one file of a downloaded package
  mkdir -p "$(dirname "$3")"
  dpkg-deb --fsys-tarfile "$OUT"/servers/"$1"_*.deb | tar --extract --to-stdout ".$2" >"$3"
  chmod 0755 "$3"
}
# The classic builder says at each call that it is deprecated; that is left out, errors are not.
docker_build() { docker build --quiet --network none "$@" >/dev/null 2> >(grep -vE '^DEPRECATED|^ +BuildKit is|^ +environment-var|^$' >&2); }
build() { # build IMAGE RECIPE CONTEXT [ARGUMENTS…]; the label tells what was made here
  local image="$1" recipe="$2" context="$3" known
  shift 3
  known="$(label "$image" $MADE)"
  if [[ -z "$known" ]] && docker image inspect "$image" >/dev/null 2>&1; then
    say "$image is here and was not made by this script: left as it is"
    return
  fi
  docker_build --label "$MADE=$SUITE" --tag "$image" --file "$recipe" "$@" "$context"
}
stage() { rm -rf "${OUT:?}/stage/$1" && mkdir -p "$OUT/stage/$1" && echo "$OUT/stage/$1"; }

server() { # server IMAGE NAME [ARGUMENTS…]: with the small tools that health checks and start commands of the compose file call
  from_package busybox-static /bin/busybox "$OUT/stage/$2/busybox"
  build "$1" "$HERE/$2.Dockerfile" "$OUT/stage/$2" "${@:3}"
}
folder="$(stage etcd)"
from_package etcd-server /usr/bin/etcd "$folder/etcd"
from_package etcd-client /usr/bin/etcdctl "$folder/etcdctl"
build "$IMAGE_ETCD" "$HERE/etcd.Dockerfile" "$folder" --build-arg BASE="$BASE"
folder="$(stage haproxy)"
cp "$OUT"/servers/haproxy/*.deb "$folder/"
server "$IMAGE_PROXY" haproxy --build-arg BASE="$BASE"
cp .venv/bin/nats-server "$(stage nats)/"
server "$IMAGE_NATS" nats
folder="$(stage rclone)"
cp .venv/bin/rclone "$folder/"
install -m 0755 "$HERE/nc" "$folder/nc"
server "$IMAGE_S3" rclone

# --- the image of Lablet: the same Dockerfile as anywhere, its build stage with the wheels at hand ---------------------
lock="$(digest <requirements.lock)-$RECIPE"
if [[ "$(label "$WHEELS" $MADE)" != "$lock" ]]; then
  ours="$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  theirs="$(docker run --rm --network none "$BASE" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  [[ "$ours" == "$theirs" ]] \
    || fail ".venv has Python $ours, Debian $SUITE has $theirs: make .venv anew with it (make clean setup PYTHON=/usr/bin/python3)"
  folder="$(stage wheels)"
  printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$folder/pip.conf"
  cp --recursive --link "$OUT/wheels" "$folder/"
  docker_build --label "$MADE=$lock" --tag "$WHEELS" --build-arg BASE="$BASE" \
    --file "$HERE/wheels.Dockerfile" "$folder"
fi
VERSION="$(sed -n 's/^__version__ = "\(.*\)"/\1/p' libs/common/lablet_common/version.py)"
REVISION="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
say "building $IMAGE_LABLET"
docker_build --label "$MADE=$SUITE" --tag "$IMAGE_LABLET" --file deploy/docker/Dockerfile \
  --build-arg PYTHON_IMAGE="$WHEELS" --build-arg VERSION="$VERSION" --build-arg REVISION="$REVISION" .

# --- what there is now ------------------------------------------------------------------------------------------------
IMAGES=("$IMAGE_ETCD" "$IMAGE_NATS" "$IMAGE_S3" "$IMAGE_PROXY" "$IMAGE_LABLET")
for image in "${IMAGES[@]}"; do
  printf 'airgap: %-32s %5d MB\n' "$image" "$(($(docker image inspect --format '{{.Size}}' "$image") / 1000000))"
done
if [[ -n "$SAVE" ]]; then
  docker save "${IMAGES[@]}" | gzip --fast >"$SAVE.part"
  mv "$SAVE.part" "$SAVE"
  say "$SAVE: $(($(stat --format %s "$SAVE") / 1000000)) MB; elsewhere: docker load --input $(basename "$SAVE")"
fi
say "ready after $SECONDS s"
