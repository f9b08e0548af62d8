"""What is asked of EC2 for one machine. Pure: an order, an image and the settings in, the call's arguments out.

The machine's volume is encrypted, at least as large as its image, and goes with it; its metadata service answers only to
tokens, so that a lab cannot read the machine's role through a plain request.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lablet_workers.providers.port import LaunchOrder, ProviderError
from lablet_workers.settings import Ec2Settings

MOST_USER_DATA = 16 * 1024
"""Bytes of user data that EC2 takes, before base64 (source: its documented limit)."""


class ImageMissing(LookupError):
    """No image to choose from."""


def newest_image(images: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """By date of creation, then by id, so that the choice is the same everywhere. Raises `ImageMissing`."""
    ordered = sorted(images, key=lambda image: (str(image.get("CreationDate", "")), str(image["ImageId"])))
    if not ordered:
        raise ImageMissing
    return ordered[-1]


def run_instances_arguments(
    order: LaunchOrder, image: Mapping[str, Any], settings: Ec2Settings, region: str
) -> dict[str, Any]:
    """Raises `ProviderError` for user data that EC2 would not take."""
    size = len(order.user_data.encode())
    if size > MOST_USER_DATA:
        raise ProviderError(
            f"the user data (EC2_USER_DATA_FILE) has {size} bytes, EC2 takes {MOST_USER_DATA}: let it fetch the rest"
        )
    tags = [{"Key": key, "Value": value} for key, value in sorted({**(order.tags or {}), "Name": order.name}.items())]
    arguments: dict[str, Any] = {
        "ImageId": image["ImageId"],
        "InstanceType": order.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": order.client_token,
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        "BlockDeviceMappings": [_volume(order, image)],
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
    }
    if order.user_data:
        arguments["UserData"] = order.user_data
    subnets, groups = settings.subnets(region), settings.security_groups(region)
    if subnets:
        arguments["SubnetId"] = subnets[0]
    if groups:
        arguments["SecurityGroupIds"] = groups
    if settings.key_name:
        arguments["KeyName"] = settings.key_name
    if settings.instance_profile:
        kind = "Arn" if settings.instance_profile.startswith("arn:") else "Name"
        arguments["IamInstanceProfile"] = {kind: settings.instance_profile}
    return arguments


def _volume(order: LaunchOrder, image: Mapping[str, Any]) -> dict[str, Any]:
    root = str(image.get("RootDeviceName") or "/dev/sda1")
    least = max(
        (
            int(device["Ebs"].get("VolumeSize") or 0)
            for device in image.get("BlockDeviceMappings", ())
            if device.get("DeviceName") == root and "Ebs" in device
        ),
        default=0,
    )
    disk: dict[str, Any] = {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    size = max(least, order.storage_gb)
    if size:
        disk["VolumeSize"] = size
    return {"DeviceName": root, "Ebs": disk}
