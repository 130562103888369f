# task-definition.json and service.json by Terraform: it reads both, so there is one place to change.
#   terraform init && terraform apply -var cluster=CLUSTER -var image=REGISTRY/eni53:VERSION
terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "cluster" {
  type        = string
  description = "Name or ARN of the cluster"
}

variable "image" {
  type        = string
  description = "The image, as built from deploy/image/Dockerfile"
}

variable "log_retention_in_days" {
  type    = number
  default = 14
}

data "aws_region" "current" {}

locals {
  task    = jsondecode(file("${path.module}/task-definition.json"))
  service = jsondecode(file("${path.module}/service.json"))
  containers = replace(
    replace(jsonencode(local.task.containerDefinitions), "REGISTRY/eni53:VERSION", var.image),
    "\"REGION\"", jsonencode(data.aws_region.current.id)
  )
}

resource "aws_cloudwatch_log_group" "eni53" {
  name              = local.task.containerDefinitions[0].logConfiguration.options["awslogs-group"]
  retention_in_days = var.log_retention_in_days
}

resource "aws_ecs_task_definition" "eni53" {
  family                   = local.task.family
  requires_compatibilities = local.task.requiresCompatibilities
  network_mode             = local.task.networkMode
  pid_mode                 = local.task.pidMode
  container_definitions    = local.containers

  dynamic "volume" {
    for_each = local.task.volumes
    content {
      name      = volume.value.name
      host_path = volume.value.host.sourcePath
    }
  }
}

resource "aws_ecs_service" "eni53" {
  cluster                            = var.cluster
  name                               = local.service.serviceName
  task_definition                    = aws_ecs_task_definition.eni53.arn
  launch_type                        = local.service.launchType
  scheduling_strategy                = local.service.schedulingStrategy
  deployment_maximum_percent         = local.service.deploymentConfiguration.maximumPercent
  deployment_minimum_healthy_percent = local.service.deploymentConfiguration.minimumHealthyPercent
  depends_on                         = [aws_cloudwatch_log_group.eni53]
}
