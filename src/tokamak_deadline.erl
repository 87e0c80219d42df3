%% SPDX-License-Identifier: Apache-2.0
%% @doc Time-outs of waits that go on in several steps.
%% @private
-module(tokamak_deadline).

-export([new/1, time_left/1]).
-export_type([deadline/0]).

-opaque deadline() :: infinity | integer().

%% @doc The deadline of a time-out that begins now.
-spec new(timeout()) -> deadline().
new(infinity) -> infinity;
new(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

%% @doc The milliseconds until a deadline, 0 after it.
-spec time_left(deadline()) -> timeout().
time_left(infinity) -> infinity;
time_left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).
