%% SPDX-License-Identifier: Apache-2.0
%% @doc Reads from a descriptor, but waits no longer than told: one loop watches both the
%% descriptor and a timer.
-module(timed_read).

-export([read/3]).

%% @doc Returns what can be read within `Milliseconds', at most `Max' bytes of it.
-spec read(tokamak_fd:fd(), pos_integer(), non_neg_integer()) ->
    {ok, binary()} | eof | timeout | {error, term()}.
read(Fd, Max, Milliseconds) ->
    {ok, Loop} = tokamak_loop:new(),
    Readable = tokamak_id:next(),
    Deadline = tokamak_id:next(),
    ok = tokamak_loop:add_reader(Loop, Fd, Readable),
    _ = tokamak_loop:start_timer(Loop, Milliseconds, Deadline),
    Result = case tokamak_loop:poll(Loop, Milliseconds + 5000) of
        [{Readable, read, _} | _] -> tokamak_fd:read(Fd, Max);
        [{Deadline, timer, _} | _] -> timeout
    end,
    ok = tokamak_loop:destroy(Loop),
    Result.
