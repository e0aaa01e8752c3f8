# Sourced by the scripts beside it: quoin_setup KIND... makes sure that what tools/packages.txt
# lists for these kinds is there. On Debian and its relatives it installs what is missing, as root
# or through sudo; elsewhere it says what is needed. It fails only when something is really missing.

# Whether the last column of a row finds the thing on this system.
quoin_found() {
  local way=$1 x
  shift
  for x in "$@"; do
    case $way in
    command) command -v "$x" >/dev/null && return 0 ;;
    file) [ -e "$x" ] && return 0 ;;
    pkg) pkg-config --exists "$x" 2>/dev/null || pkgconf --exists "$x" 2>/dev/null && return 0 ;;
    esac
  done
  return 1
}

# Prints "package<TAB>kind<TAB>role" for every missing row of the kinds.
quoin_missing() {
  local package kind role how installed=
  if command -v dpkg-query >/dev/null; then
    installed=" $(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null |
      awk '$2 == "installed" { printf "%s ", $1 }')"
  fi
  while IFS='|' read -r package kind role how; do
    read -r package <<<"$package"
    read -r kind <<<"$kind"
    read -r role <<<"$role"
    case $package in '' | '#'*) continue ;; esac
    case " $* " in *" $kind "*) ;; *) continue ;; esac
    case $installed in *" $package "*) continue ;; esac
    # shellcheck disable=SC2086
    quoin_found $how && continue
    printf '%s\t%s\t%s\n' "$package" "$kind" "$role"
  done <tools/packages.txt
}

quoin_install() {
  local sudo=() log
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || return 1
    sudo=(sudo)
    [ -t 0 ] || sudo=(sudo -n)
  fi
  echo "installing: $*" >&2
  log=$(mktemp)
  # The lists may be absent or old, and the network may be: the install tells.
  "${sudo[@]}" apt-get update >"$log" 2>&1
  if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

quoin_setup() {
  local needed optional left
  needed=$(quoin_missing "$@" | cut -f 1)
  optional=$(quoin_missing extra | cut -f 1)
  # shellcheck disable=SC2086
  if [ -n "$needed" ]; then
    quoin_install $needed $optional || quoin_install $needed || true
  elif [ -n "$optional" ] && [ ! -e build/.no-extras ]; then
    # Tried once, not at every start.
    quoin_install $optional || { mkdir -p build && touch build/.no-extras; }
  fi
  left=$(quoin_missing "$@")
  [ -z "$left" ] && return 0
  echo "quoin needs the following, which could not be installed automatically:" >&2
  while IFS=$'\t' read -r package kind role; do
    printf '  %s (to %s; Debian package %s)\n' "$role" "$kind" "$package" >&2
  done <<<"$left"
  return 1
}
