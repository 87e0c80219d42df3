%% SPDX-License-Identifier: Apache-2.0
%% A VM that ends under load does so in time, with the status that it was given, and takes its children along.
-module(tokamak_halt_tests).

-include_lib("eunit/include/eunit.hrl").

-export([live/1, hold_file/1]).

-import(tokamak_test, [wait_until/1, with_directory/1]).

-define(VMS, 2).
-define(DRAIN, 200).
%% What an end may take beyond drain_timeout, in milliseconds: the spawner gives children five seconds.
-define(MARGIN, 10_000).
-define(BOOT, 60_000).

halt_test_() ->
    tokamak_test:cases(180, [
        {"init:stop/0 under load", fun() -> end_vms(init_stop, ?VMS) end},
        {"halt/0 under load", fun() -> end_vms(halt, ?VMS) end},
        {"halt/2 under load, without flushing", fun() -> end_vms(halt_at_once, ?VMS) end},
        {"SIGTERM under load", fun() -> end_vms(sigterm, ?VMS) end},
        {"operations that run when a VM halts are dropped, from OTP 26 on", fun halt_drops_operations/0}
    ]).

%% Starts so many VMs, one after the other, and ends each under load.
end_vms(How, Count) ->
    tokamak_test:repeat(Count, fun() -> with_directory(fun(Directory) -> end_vm(How, Directory) end) end).

end_vm(How, Directory) ->
    Dump = filename:join(Directory, "erl_crash.dump"),
    Port = start_vm("tokamak_halt_tests:live(" ++ atom_to_list(How) ++ ")", Dump),
    {OsPid, Family} = wait_for_load(Port),
    From = erlang:monotonic_time(millisecond),
    Port ! {self(), {command, "end\n"}},
    _ = How =:= sigterm andalso os:cmd("kill -TERM " ++ integer_to_list(OsPid)),
    ?assertEqual(status(How), exit_status(Port)),
    ?assert(erlang:monotonic_time(millisecond) - From < ?DRAIN + ?MARGIN),
    wait_until(fun() -> not lists:any(fun tokamak_wait:is_running/1, Family) end),
    ?assertNot(filelib:is_file(Dump)).

status(halt_at_once) -> 7;
status(_) -> 0.

start_vm(Call, Dump) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filename:pathtype(Path) =:= absolute]),
    open_port({spawn_executable, os:find_executable("erl")}, [
        {args, ["-noshell", "-eval", "spawn(fun() -> try " ++ Call ++ " catch _:_ -> halt(99) end end)."] ++ Paths},
        {env, [{"ERL_CRASH_DUMP", Dump}]},
        {line, 1000},
        exit_status,
        stderr_to_stdout
    ]).

wait_for_load(Port) ->
    receive
        {Port, {data, {eol, "under load: " ++ OsPids}}} ->
            [OsPid | Family] = [list_to_integer(Word) || Word <- string:lexemes(OsPids, " ")],
            {OsPid, Family};
        {Port, {exit_status, Status}} -> error({ended, Status})
    after ?BOOT -> error(not_under_load)
    end.

exit_status(Port) ->
    receive
        {Port, {exit_status, Status}} -> Status
    after ?DRAIN + ?MARGIN -> error({does_not_end, erlang:port_info(Port, os_pid)})
    end.

%% @doc What such a VM does.
live(How) ->
    ok = application:load(tokamak),
    ok = application:set_env(tokamak, drain_timeout, ?DRAIN),
    ok = application:start(tokamak),
    Load = tokamak_load:start(),
    tokamak_load:wait_until_used(Load),
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    {ok, Program} = tokamak_subprocess:start(["sleep", "1000"]),
    {ok, OsPid} = tokamak_subprocess:os_pid(Program),
    io:format("under load: ~s ~b ~b~n", [os:getpid(), Spawner, OsPid]),
    "end\n" = io:get_line(""),
    finish(How).

finish(init_stop) -> init:stop();
finish(halt) -> halt();
finish(halt_at_once) -> halt(7, [{flush, false}]);
finish(sigterm) -> receive after infinity -> ok end.

halt_drops_operations() ->
    with_directory(fun(Directory) ->
        File = filename:join(Directory, "held"),
        Dump = filename:join(Directory, "erl_crash.dump"),
        Port = start_vm("tokamak_halt_tests:hold_file(\"" ++ File ++ "\")", Dump),
        ?assertEqual(0, exit_status(Port)),
        IsNew = list_to_integer(erlang:system_info(otp_release)) >= 26,
        ?assertEqual(IsNew, not filelib:is_file(File)),
        ?assertNot(filelib:is_file(Dump))
    end).

hold_file(File) ->
    {ok, _} = application:ensure_all_started(tokamak),
    _ = tokamak:async(call_fixture:op(holds_file), [File]),
    wait_until(fun() -> filelib:is_file(File) end),
    halt().
