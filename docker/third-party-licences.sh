#!/usr/bin/env bash
# The licences of all crates that are linked into the programs, on standard output: each text once, behind the names
# of the crates that come with it. To be run in the workspace, after a build.
set -euo pipefail
shopt -s nullglob nocaseglob

line=$(printf '=%.0s' {1..78})
store=${CARGO_HOME:-$HOME/.cargo}/registry/src
declare -A texts=() owners=()
order=()

# A crate a line: its name, its version, and behind a bar its licence. Ours have a path.
crates=$(cargo tree --locked --no-default-features -p relay -p client -e normal,no-proc-macro --prefix none \
    -f '{p}|{l}' | grep -vE '^$|\(/|\(\*\)' | sort -u)
while IFS='|' read -r crate licence; do
    read -r name version _ <<<"$crate"
    crate="$name ${version#v}"
    found=no
    for file in "$store"/*/"${crate/ /-}"/{,*/}{LICEN[CS]E,COPYING,NOTICE}*; do
        [[ -f $file ]] || continue
        found=yes
        sum=$(sha256sum <"$file")
        if [[ -z ${texts[$sum]-} ]]; then
            texts[$sum]=$file
            order+=("$sum")
        fi
        [[ ${owners[$sum]-} == *"  $crate ("* ]] || owners[$sum]+="  $crate ($licence)"$'\n'
    done
    if [[ $found == no ]]; then
        printf '%s\n  %s (%s), which comes without a text\n\n' "$line" "$crate" "$licence"
    fi
done <<<"$crates"

printf '%s\n  The Rust standard library (MIT OR Apache-2.0), by the Rust Project; both texts are below\n\n' "$line"
for sum in "${order[@]}"; do
    printf '%s\n%s\n' "$line" "${owners[$sum]}"
    cat "${texts[$sum]}"
    echo
done
