#!/bin/bash
# Example of user data (EC2_USER_DATA_FILE) for a machine made from a CML image: first boot only, at most 16 KB. The image has
# CML installed and its console enabled; this makes the admin's first password, opens nothing, and ends.
#
# The password is fetched by the machine's own role (EC2_INSTANCE_PROFILE), so that it stands neither here nor in the
# instance's description. It is the one that the worker-controller has as CML_PASSWORD(_FILE).
set -euo pipefail
exec > >(logger --tag lablet-user-data) 2>&1
umask 077

readonly SECRET="lablet/cml-password"
readonly METADATA="http://169.254.169.254/latest"

token="$(curl --silent --fail --retry 5 --request PUT --header "X-aws-ec2-metadata-token-ttl-seconds: 300" "$METADATA/api/token")"
region="$(curl --silent --fail --header "X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/placement/region")"

# The disk may be larger than the image was: CML's volume takes the rest.
root="$(findmnt --noheadings --output SOURCE /)"
disk="/dev/$(lsblk --noheadings --output PKNAME "$root" | head -1)"
if command -v growpart >/dev/null; then
  growpart "$disk" "$(lsblk --noheadings --output PARTN "$root" | tr -d ' ')" || true  # 1: it is as large as it can be
  resize2fs "$root" || xfs_growfs / || true
fi

password="$(aws --region "$region" secretsmanager get-secret-value --secret-id "$SECRET" --query SecretString --output text)"
[[ -n "$password" ]] || { echo "the secret $SECRET is empty"; exit 1; }

# CML reads this file at its first start and takes it away.
install --mode 0600 /dev/null /provision/initial-admin-password
printf '%s' "$password" >/provision/initial-admin-password
unset password token

systemctl enable --now virl2.target
echo "CML starts"
