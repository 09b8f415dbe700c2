variable "name" {
  description = "Prefix of everything that is made, and the cluster's name."
  type        = string
  default     = "headrace"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "Lower case letters, digits and hyphens, a letter first, 25 characters at most: bucket names take no others."
  }
}

variable "region" {
  description = "Where all of it is."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC, a /16. overlays/aws/network-patch.yaml names them too."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "A network such as 10.20.0.0/16: subnets of /20 are cut from it."
  }
}

variable "availability_zones" {
  description = "Zones to spread over. Kafka keeps one replica in each of the first three."
  type        = number
  default     = 3

  validation {
    condition     = var.availability_zones >= 3 && var.availability_zones <= 4
    error_message = "Three or four: with two, the failure of one leaves Kafka's log without a second copy in sync."
  }
}

variable "nat_gateway_per_zone" {
  description = "Whether each zone has a NAT gateway of its own. One for all costs less, and its zone's failure cuts the others off from S3's API and the registry."
  type        = bool
  default     = true
}

variable "kubernetes_version" {
  description = "Of the EKS control plane and its nodes."
  type        = string
  default     = "1.33"
}

variable "api_access_cidrs" {
  description = "Networks that may reach the cluster's API from outside. Empty: from within the VPC alone."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.api_access_cidrs, "0.0.0.0/0")
    error_message = "Name the networks that administrators come from; the whole internet is none."
  }
}

variable "node_instance_type" {
  description = "A worker learns and answers on one core and a little, and holds all videos in memory (docs/scale.md): cores of a high clock, 8 GB a core."
  type        = string
  default     = "r7i.large"
}

variable "nodes" {
  description = "Fewest, wanted at first, and most nodes."
  type = object({
    min     = number
    desired = number
    max     = number
  })
  default = {
    min     = 3
    desired = 3
    max     = 9
  }
}

variable "kafka_version" {
  description = "Of MSK; transactions and KRaft need 3.7 or later to be what Headrace is tested with."
  type        = string
  default     = "3.9.x"
}

variable "kafka_instance_type" {
  description = "Of each broker."
  type        = string
  default     = "kafka.m7g.large"
}

variable "kafka_storage_gb" {
  description = "Disk of each broker at first; it grows by itself up to four times that. interactions are kept for ever unless retention.ms is set: 87 bytes an event, three times over."
  type        = number
  default     = 200
}

variable "redis_node_type" {
  description = "A cache of users' last lists, a few KB each; Headrace works without it."
  type        = string
  default     = "cache.t4g.small"
}

variable "lake_retention_days" {
  description = "Days until events in the lake are deleted; 0 keeps them. They name users: keep them no longer than you may."
  type        = number
  default     = 0
}

variable "snapshot_retention_days" {
  description = "Days until snapshots are deleted. A snapshot holds what was known of users, and erasing does not reach into it."
  type        = number
  default     = 30
}

variable "log_retention_days" {
  description = "Of the control plane's, Kafka's and Redis' logs in CloudWatch."
  type        = number
  default     = 30
}

variable "deletion_protection" {
  description = "Whether buckets that hold something, and the cluster, refuse to be destroyed."
  type        = bool
  default     = true
}
