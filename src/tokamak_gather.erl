%% SPDX-License-Identifier: Apache-2.0
%% @doc Gathers: calls of one engine run in one native call; a mixture runs engine by engine's own calls,
%% started and awaited from here.
%% @private
-module(tokamak_gather).

-export([resolve/1, run/2]).

-type call() :: {module(), atom(), [term()]}.
-type options() :: {pos_integer(), fail_fast | settle, timeout()}.

%% @doc The calls with their engines.
-spec resolve(term()) -> {ok, [call()]} | error.
resolve(Calls) when is_list(Calls) -> resolve(Calls, []);
resolve(_Calls) -> error.

resolve([{Op, Args} | Rest], Resolved) when is_list(Args) ->
    case tokamak_call:resolve(Op) of
        {Engine, Name} -> resolve(Rest, [{Engine, Name, Args} | Resolved]);
        error -> error
    end;
resolve([], Resolved) ->
    {ok, lists:reverse(Resolved)};
resolve(_Wrong, _Resolved) ->
    error.

%% @doc Runs calls; `badarg' with the call, the argument and what was expected.
-spec run([call()], options()) -> {ok, [term()]} | {error, term()} | {badarg, term(), term(), term()}.
run([], _Options) ->
    {ok, []};
run([{Engine, Name, _} | _] = Calls, Options) ->
    case lists:all(fun({Other, _, _}) -> Other =:= Engine end, Calls) of
        true ->
            case tokamak_call:ensure(Engine, Name) of
                ok -> native(Engine, Calls, Options);
                {error, Reason} -> without_engine(Reason, Calls, Options)
            end;
        false ->
            mixed(Calls, Options)
    end.

%% A stop ends the gather as a whole, as it does natively; otherwise the calls fail, as those of a mixture do.
without_engine(shutdown, _Calls, _Options) ->
    {error, shutdown};
without_engine(Reason, _Calls, {_MaxConcurrency, fail_fast, _Timeout}) ->
    {error, {1, Reason}};
without_engine(Reason, Calls, {_MaxConcurrency, settle, _Timeout}) ->
    {ok, [{error, reason_of(Reason, Call)} || Call <- Calls]}.

reason_of({unknown_operation, _First}, {Engine, Name, _Args}) -> {unknown_operation, {Engine, Name}};
reason_of(Reason, _Call) -> Reason.

native(Engine, Calls, {MaxConcurrency, Mode, Timeout}) ->
    Named = [{Name, Args} || {_Engine, Name, Args} <- Calls],
    Ref = make_ref(),
    case start_native(Engine, Named, MaxConcurrency, Mode, Ref) of
        Key when is_integer(Key) ->
            receive
                {tokamak, Ref, End} -> End
            after Timeout -> cancel(Engine, Key, Ref)
            end;
        Other ->
            Other
    end.

start_native(Engine, Calls, MaxConcurrency, Mode, Ref) ->
    case tokamak_call:are_many(Calls) of
        true -> Engine:op_gather_many(Calls, MaxConcurrency, Mode, Ref);
        false -> Engine:op_gather(Calls, MaxConcurrency, Mode, Ref)
    end.

cancel(Engine, Key, Ref) ->
    case Engine:op_cancel(Key) of
        cancelled ->
            {error, timeout};
        _SendingOrSent ->
            receive
                {tokamak, Ref, End} -> End
            end
    end.

%% A gather over several engines: the caller itself starts and awaits, `MaxConcurrency' at once. Each call is
%% a gather of one, which waits for its place instead of being refused.
mixed(Calls, {MaxConcurrency, Mode, Timeout}) ->
    Numbered = lists:zip(lists:seq(1, length(Calls)), Calls),
    case check(Numbered) of
        ok ->
            {Now, Later} = lists:split(min(MaxConcurrency, length(Numbered)), Numbered),
            collect(start_all(Now, #{}), Later, #{}, Mode, tokamak_deadline:new(Timeout));
        Wrong ->
            Wrong
    end.

%% What is wrong with the first wrong arguments. A call whose engine is not there fails later.
check([]) ->
    ok;
check([{Index, {Engine, Name, Args}} | Rest]) ->
    case tokamak_call:in_engine(Engine, Name, fun() -> Engine:op_check(Name, Args) end) of
        {badarg, Argument, Expected} -> {badarg, Index, Argument, Expected};
        _ -> check(Rest)
    end.

start_all(Calls, Running) ->
    lists:foldl(fun start/2, Running, Calls).

start({Index, {Engine, Name, Args}}, Running) ->
    Ref = make_ref(),
    Start = fun() -> Engine:op_gather([{Name, Args}], 1, settle, Ref) end,
    case tokamak_call:in_engine(Engine, Name, Start) of
        Key when is_integer(Key) ->
            Running#{Ref => {Index, Engine, Key}};
        {error, _} = Error ->
            self() ! {tokamak, Ref, Error},
            Running#{Ref => {Index, Engine, none}}
    end.

collect(Running, [], Ended, Mode, _Deadline) when map_size(Running) =:= 0 ->
    Ends = [End || {_Index, End} <- lists:sort(maps:to_list(Ended))],
    case Mode of
        settle -> {ok, Ends};
        fail_fast -> {ok, [Result || {ok, Result} <- Ends]}
    end;
collect(Running, Later, Ended, Mode, Deadline) ->
    receive
        {tokamak, Ref, Gathered} when is_map_key(Ref, Running) ->
            {{Index, _Engine, _Key}, Rest} = maps:take(Ref, Running),
            case {Mode, part(Gathered)} of
                {fail_fast, {error, Reason}} ->
                    cancel_all(Rest),
                    {error, {Index, Reason}};
                {_, End} ->
                    {Next, Remaining} = lists:split(min(1, length(Later)), Later),
                    collect(start_all(Next, Rest), Remaining, Ended#{Index => End}, Mode, Deadline)
            end
    after tokamak_deadline:time_left(Deadline) ->
        cancel_all(Running),
        {error, timeout}
    end.

part({ok, [End]}) -> End;
part({error, _} = Error) -> Error.

%% Leaves none of their messages behind.
cancel_all(Running) ->
    maps:foreach(fun cancel_part/2, Running).

cancel_part(Ref, {_Index, _Engine, none}) ->
    receive
        {tokamak, Ref, _} -> ok
    end;
cancel_part(Ref, {_Index, Engine, Key}) ->
    _ = cancel(Engine, Key, Ref),
    ok.
