# SPDX-License-Identifier: Apache-2.0
defmodule MixApp.MixProject do
  use Mix.Project

  def project do
    [
      app: :mix_app,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:tokamak, path: "../..", manager: :rebar3}]
    ]
  end

  def application, do: []
end
