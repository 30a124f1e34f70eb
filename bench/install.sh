#!/usr/bin/env bash
# Installs what the bench measures with and beside: Debian packages when root,
# frp and chisel from the Go module proxy. What cannot be had is said loudly
# and left out of the run; nothing here fails.
#
#   eval "$(bench/install.sh CACHE)"    sets NGINX, FRPS, FRPC, CHISEL
set -uo pipefail
cache=${1:?folder to keep binaries in}
GO=${GO:-go}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

skip() { printf 'bench: NOT TO BE HAD: %s\n' "$*" >&2; }

packages=()
have() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null; }
have nginx || packages+=(nginx-light)
have wrk || packages+=(wrk)
have h2load || packages+=(nghttp2-client)
have ip || packages+=(iproute2)
if [ ${#packages[@]} -gt 0 ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		# The package may not start a server of its own beside the measurement.
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive sh -c 'apt-get -qq update && apt-get -qq -y --no-install-recommends install "$@"' sh "${packages[@]}" >&2 ||
			skip "packages ${packages[*]}"
	else
		skip "packages ${packages[*]}: install them as root"
	fi
fi

# module PATH VERSION BINARY PACKAGE [TAGS]: builds one binary of a module as
# its own main module, so that its replace lines hold.
module() {
	local path=$1 version=$2 binary=$3 package=$4 tags=${5:-} out=$cache/$3-$2 dir log
	if [ ! -x "$out" ]; then
		log=$(mktemp)
		if ! dir=$("$GO" mod download -json "$path@$version" 2>"$log" | tee -a "$log" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || [ -z "$dir" ]; then
			skip "$path $version: $(sed -n 's/^\t"Error": //p' "$log" | head -n 1)"
		elif ! CGO_ENABLED=0 GOWORK=off "$GO" build -C "$dir" -trimpath -tags "$tags" -o "$out" "$package" 2>"$log"; then
			skip "$path $version: $(tail -n 1 "$log")"
		fi
		rm -f "$log"
	fi
	if [ -x "$out" ]; then printf 'export %s=%q\n' "$binary" "$out"; fi
}

if n=$(PATH=$PATH:/usr/sbin command -v nginx); then printf 'export NGINX=%q\n' "$n"; fi
module github.com/fatedier/frp v0.70.1 FRPS ./cmd/frps frps,noweb
module github.com/fatedier/frp v0.70.1 FRPC ./cmd/frpc frpc,noweb
module github.com/jpillora/chisel v1.11.5 CHISEL .
