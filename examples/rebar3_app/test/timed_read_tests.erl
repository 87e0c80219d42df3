%% SPDX-License-Identifier: Apache-2.0
-module(timed_read_tests).

-include_lib("eunit/include/eunit.hrl").

timed_read_test_() ->
    {setup,
     fun() -> {ok, Started} = application:ensure_all_started(rebar3_app), Started end,
     fun(Started) -> [ok = application:stop(App) || App <- lists:reverse(Started)] end,
     [{"data that is there is read at once", fun data_is_read/0},
      {"an empty pipe gives timeout, not early", fun an_empty_pipe_times_out/0},
      {"a pipe without writers gives eof", fun a_closed_pipe_is_eof/0}]}.

data_is_read() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 5} = tokamak_fd:write(Write, <<"hello">>),
    ?assertEqual({ok, <<"hello">>}, timed_read:read(Read, 100, 5000)),
    close([Read, Write]).

an_empty_pipe_times_out() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {Microseconds, Result} = timer:tc(fun() -> timed_read:read(Read, 100, 20) end),
    ?assertEqual(timeout, Result),
    ?assert(Microseconds >= 20000),
    close([Read, Write]).

a_closed_pipe_is_eof() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    close([Write]),
    ?assertEqual(eof, timed_read:read(Read, 100, 5000)),
    close([Read]).

close(Fds) ->
    [ok = tokamak_fd:close(Fd) || Fd <- Fds].
